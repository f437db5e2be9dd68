"""How good a classifier is, from what it said of texts whose labels are known. Arithmetic on arrays, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION_BINS = 15
RESAMPLES = 400
MOST_WRONG = 10
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Bin:
    """The texts whose likeliest label had a probability from `low` to `high`: its mean, and how many were right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Mistake:
    text: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True)
class Report:
    """`confusion[i][j]` counts texts of label i that were called label j. Intervals are of 95 %: Wilson's for the
    accuracy, the bootstrap's percentiles for macro-F1. `majority` is the accuracy of always naming the commonest."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    majority: float
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    bins: tuple[Bin, ...]
    wrong: tuple[Mistake, ...]

    def public(self) -> dict[str, Any]:
        """As `/train_classifier` gives it."""
        return {**self.figures(), "most_confidently_wrong": [_fields(mistake) for mistake in self.wrong]}

    def figures(self) -> dict[str, Any]:
        """Without anybody's texts, as it is saved with the head."""
        return {
            "labels": list(self.labels),
            "counts": list(self.counts),
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "macro_f1": self.macro_f1,
            "macro_f1_interval": list(self.macro_f1_interval),
            "majority": self.majority,
            "confusion": [list(row) for row in self.confusion],
            "calibration_error": self.calibration_error,
            "calibration": [_fields(each) for each in self.bins],
        }


def report(
    labels: Sequence[str], truth: NDArray[np.intp], probabilities: NDArray[np.float64], texts: Sequence[str]
) -> Report:
    """`truth` [n] are places in `labels`; `probabilities` [n, len(labels)]; `texts` are shown where they were wrong."""
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = said == truth
    bins = calibration_bins(confidence, right)
    wrong = sorted(np.flatnonzero(~right).tolist(), key=lambda place: -confidence[place])[:MOST_WRONG]
    counts = np.bincount(truth, minlength=len(labels))
    confusion = confusion_matrix(truth, said, len(labels))
    return Report(
        labels=tuple(labels),
        counts=tuple(counts.tolist()),
        accuracy=float(right.mean()),
        accuracy_interval=wilson(int(right.sum()), len(right)),
        macro_f1=macro_f1(confusion),
        macro_f1_interval=_bootstrap(truth, said, len(labels)),
        majority=float(counts.max() / len(truth)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration_error=calibration_error(bins),
        bins=bins,
        wrong=tuple(
            Mistake(texts[place], labels[truth[place]], labels[said[place]], float(confidence[place]))
            for place in wrong
        ),
    )


def confusion_matrix(truth: NDArray[np.intp], said: NDArray[np.intp], count: int) -> NDArray[np.int64]:
    cells: NDArray[np.int64] = np.bincount(truth * count + said, minlength=count * count).reshape(count, count)
    return cells


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """The mean over the labels that occur of 2 x right / (called so + being so)."""
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    there = total > 0
    return float((2 * np.diag(confusion)[there] / total[there]).mean())


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927), which stays within 0 and 1 and is not of width 0 at either."""
    share, square = right / count, _NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _NORMAL_95 / (1 + square / count) * np.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def calibration_bins(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """`CALIBRATION_BINS` of equal width from 0 to 1; those without texts are left out."""
    places = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return tuple(
        Bin(
            low=place / CALIBRATION_BINS,
            high=(place + 1) / CALIBRATION_BINS,
            count=int((places == place).sum()),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in sorted(set(places.tolist()))
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error (Naeini et al. 2015): the mean distance of confidence and accuracy."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def _bootstrap(truth: NDArray[np.intp], said: NDArray[np.intp], count: int) -> tuple[float, float]:
    drawn = np.random.default_rng(0)
    cells = confusion_matrix(truth, said, count).ravel()
    draws = drawn.multinomial(len(truth), cells / cells.sum(), RESAMPLES)
    scores = [macro_f1(draw.reshape(count, count)) for draw in draws]
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)


def _fields(value: Bin | Mistake) -> Mapping[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}

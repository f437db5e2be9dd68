"""How good a classifier is, from what it said of texts whose labels are known. Arithmetic on arrays, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_demo.classify.labels import MOST_LABEL_CHARACTERS
from llama_demo.errors import BadLabels
from llama_demo.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION_BINS = 15
RESAMPLES = 400
MOST_WRONG = 10
MOST_UNKNOWN = 10
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
    accuracy, the bootstrap's percentiles for macro-F1. `majority` is the accuracy of always naming the commonest.
    `left_out` texts had none of the labels; `unknown_labels` are some that they had instead."""

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
    left_out: int = 0
    unknown_labels: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """As `/train_classifier` gives it."""
        wrong = [_fields(mistake) for mistake in self.wrong]
        left = {"left_out": self.left_out, "unknown_labels": list(self.unknown_labels)} if self.left_out else {}
        return {**self.figures(), "most_confidently_wrong": wrong, **left}

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


class Tally:
    """Counts what a classifier says of texts whose labels are known, some at a time; of the texts it keeps only the
    most confident mistakes. Raises `BadLabels` for a classifier that does not give each text one of its labels."""

    def __init__(self, labels: Sequence[str], problem_type: str = "single_label_classification") -> None:
        if problem_type != "single_label_classification":
            raise BadLabels(Reason("labels.no_report"))
        self._labels = tuple(labels)
        self._places = {label: place for place, label in enumerate(labels)}
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._confidence: list[NDArray[np.float64]] = []
        self._right: list[NDArray[np.bool_]] = []
        self._wrong: list[Mistake] = []
        self._unknown: dict[str, None] = {}
        self._left_out = 0

    def add(self, texts: Sequence[str], truth: Sequence[str], scores: Sequence[Mapping[str, float]]) -> None:
        """Texts with their labels, and the probability of every label of the classifier for each. A text whose label
        is empty or none of the classifier's is left out, and counted."""
        known = [place for place, label in enumerate(truth) if label in self._places]
        self._left_out += len(truth) - len(known)
        for label in truth:
            if label and label not in self._places and len(self._unknown) < MOST_UNKNOWN:
                self._unknown[label[:MOST_LABEL_CHARACTERS]] = None
        if known:
            shares = np.array([[scores[place][label] for label in self._labels] for place in known])
            places = np.array([self._places[truth[place]] for place in known], dtype=np.intp)
            self.count([texts[place] for place in known], places, shares)

    def count(self, texts: Sequence[str], truth: NDArray[np.intp], probabilities: NDArray[np.float64]) -> None:
        """`truth` [n] are places among the labels; `probabilities` [n, labels]."""
        said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        right = said == truth
        self._confusion += confusion_matrix(truth, said, len(self._labels))
        self._confidence.append(confidence)
        self._right.append(right)
        worst = sorted(np.flatnonzero(~right).tolist(), key=lambda place: -confidence[place])[:MOST_WRONG]
        self._wrong += [
            Mistake(texts[place], self._labels[truth[place]], self._labels[said[place]], float(confidence[place]))
            for place in worst
        ]
        self._wrong = sorted(self._wrong, key=lambda mistake: -mistake.probability)[:MOST_WRONG]

    def report(self) -> Report:
        """Raises `BadLabels` where no text had one of the labels."""
        counts = self._confusion.sum(axis=1)
        count, right = int(counts.sum()), int(np.trace(self._confusion))
        if not count:
            labels, there = ", ".join(self._labels), ", ".join(self._unknown)
            if not there:
                raise BadLabels(Reason("labels.none", labels=labels))
            raise BadLabels(Reason("labels.others", there=there, labels=labels))
        bins = calibration_bins(np.concatenate(self._confidence), np.concatenate(self._right))
        return Report(
            labels=self._labels,
            counts=tuple(counts.tolist()),
            accuracy=right / count,
            accuracy_interval=wilson(right, count),
            macro_f1=macro_f1(self._confusion),
            macro_f1_interval=_bootstrap(self._confusion),
            majority=float(counts.max() / count),
            confusion=tuple(tuple(row) for row in self._confusion.tolist()),
            calibration_error=calibration_error(bins),
            bins=bins,
            wrong=tuple(self._wrong),
            left_out=self._left_out,
            unknown_labels=tuple(self._unknown),
        )


def report(
    labels: Sequence[str], truth: NDArray[np.intp], probabilities: NDArray[np.float64], texts: Sequence[str]
) -> Report:
    """As `Tally`, of all texts at once: `truth` [n] are places in `labels`, `probabilities` are [n, len(labels)]."""
    tally = Tally(labels)
    tally.count(texts, truth, probabilities)
    return tally.report()


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


def _bootstrap(confusion: NDArray[np.int64]) -> tuple[float, float]:
    count, cells = int(confusion.sum()), confusion.ravel()
    draws = np.random.default_rng(0).multinomial(count, cells / count, RESAMPLES)
    scores = [macro_f1(draw.reshape(confusion.shape)) for draw in draws]
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)


def _fields(value: Bin | Mistake) -> Mapping[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}

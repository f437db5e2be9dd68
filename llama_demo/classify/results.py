"""What classification gives, as plain frozen values for the page, the API and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.classify.report import Report
from llama_demo.values import LoadProgress, Waiting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Working:
    """`done` of `total` texts have been read, of fits made, or of bytes written: `step` says which."""

    step: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one text. `label` is the likeliest, or None below the threshold; with several labels a text
    (`multi_label`) it is None and `labels` has those above one half; in a regression `scores` are the values.

    `cut_characters` of the text's end did not fit into the model's context and were not read.
    """

    label: str | None
    scores: Mapping[str, float]
    labels: tuple[str, ...] = ()
    cut_characters: int = 0

    def public(self) -> dict[str, Any]:
        """What `/classify` gives: the fields that users' programs rely on. Empty ones are left out."""
        made: dict[str, Any] = {"label": self.label, "scores": dict(self.scores)}
        if self.labels:
            made["labels"] = list(self.labels)
        if self.cut_characters:
            made["cut_characters"] = self.cut_characters
        return made


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict a text, in order, by `classifier` (a head's name, empty for zero-shot) on `model`, which read each
    text inside `prompt`. `problem_type` is what the scores are: see `Head.scores`."""

    classifier: str
    model: str
    prompt: str
    problem_type: str
    verdicts: tuple[Verdict, ...]


ClassifyUpdate = LoadProgress | Waiting | Working | Verdicts


@dataclass(frozen=True, slots=True)
class Part:
    """Some words of a text, from its character `start` to before `end`. `scores` are what is said of the text without
    them; `effects` how much lower each label's log-odds then are (the value, in a regression): above 0 where these
    words speak for the label, below 0 where they speak against it."""

    start: int
    end: int
    scores: Mapping[str, float]
    effects: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moved the decision on `text`, which is what was read of it. `method` says how that was found: each part was
    left out in turn, `words_each` words together; there are none where the text is a single word."""

    classifier: str
    model: str
    prompt: str
    problem_type: str
    text: str
    verdict: Verdict
    parts: tuple[Part, ...]
    words_each: int
    method: str = "leave_one_out"


ExplainUpdate = LoadProgress | Waiting | Working | Explanation


@dataclass(frozen=True, slots=True)
class Trained:
    """A head that has just been trained: its file, the prompt that each text was read in, and how good it is."""

    name: str
    model: str
    path: Path
    prompt: str
    report: Report


TrainUpdate = LoadProgress | Waiting | Working | Trained


@dataclass(frozen=True, slots=True)
class Exported:
    """A head with its backbone: a folder, or an archive of it."""

    path: Path


@dataclass(frozen=True, slots=True)
class Pushed:
    """The address of what is on the Hub now."""

    address: str


def verdicts(
    labels: Sequence[str], problem_type: str, scores: NDArray[np.float64], cut: Sequence[int], abstain_below: float
) -> tuple[Verdict, ...]:
    """One verdict a row of `scores` [texts, labels]; `cut` are the characters that were not read of each text."""
    made = []
    for row, characters in zip(scores.tolist(), cut, strict=True):
        named = dict(zip(labels, row, strict=True))
        best = max(named, key=lambda label: named[label])
        if problem_type == "multi_label_classification":
            above = tuple(label for label in labels if named[label] >= max(0.5, abstain_below))
            made.append(Verdict(None, named, above, characters))
        elif problem_type == "regression":
            made.append(Verdict(None, named, (), characters))
        else:
            made.append(Verdict(best if named[best] >= abstain_below else None, named, (), characters))
    return tuple(made)

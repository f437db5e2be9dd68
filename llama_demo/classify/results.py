"""What classification gives, as plain frozen values for the page, the API and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llama_demo.values import LoadProgress, Waiting


@dataclass(frozen=True, slots=True)
class Working:
    """`done` of `total` texts have been read, or of fits made: `step` says which."""

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


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict a text, in order, by `classifier` (a head's name, empty for zero-shot) on `model`."""

    classifier: str
    model: str
    verdicts: tuple[Verdict, ...]


ClassifyUpdate = LoadProgress | Waiting | Working | Verdicts

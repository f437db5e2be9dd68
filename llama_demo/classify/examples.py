"""Labelled examples as people give them, checked. It knows no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_demo.classify.labels import check_names
from llama_demo.classify.wrapping import checked
from llama_demo.classify_errors import BadExample
from llama_demo.errors import BadExamples
from llama_demo.limits import Limits
from llama_demo.values import check_text

FEWEST_EXAMPLES = 10
MOST_EXAMPLES = 50_000
MOST_CHARACTERS = 50_000_000
"""Of all texts together."""


@dataclass(frozen=True, slots=True)
class Examples:
    """`labels` in alphabetical order; `classes` are each text's place among them."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[int, ...]


def examples_from(value: object, limits: Limits) -> Examples:
    """Reads a list of {text, label}. Raises `BadExamples`, `BadExample` naming the row (from 1), `BadLabels`,
    `InvalidUnicode`, `MessageTooLong`."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise BadExamples("they must be a list of {text, label}")
    if not FEWEST_EXAMPLES <= len(value) <= MOST_EXAMPLES:
        raise BadExamples(f"there must be {FEWEST_EXAMPLES} to {MOST_EXAMPLES} of them, and there are {len(value)}")
    texts, names = [], []
    for number, row in enumerate(value, 1):
        if not isinstance(row, Mapping):
            raise BadExample("it is not {text, label}", number)
        label = row.get("label")
        if not isinstance(label, str) or not label.strip():
            raise BadExample("it has no label", number)
        texts.append(checked(row.get("text"), number, limits))
        check_text(label)
        names.append(label.strip())
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise BadExamples(f"together they have more than {MOST_CHARACTERS} characters")
    counts = Counter(names)
    if len(counts) == 1:
        raise BadExamples(f"all of them have the label {names[0]}; there must be two labels or more")
    check_names(counts)
    for name, count in counts.items():
        if count == 1:
            raise BadExample(f"only this one has the label {name}; each label needs two or more", names.index(name) + 1)
    labels = tuple(sorted(counts))
    places = {name: place for place, name in enumerate(labels)}
    return Examples(tuple(texts), labels, tuple(places[name] for name in names))

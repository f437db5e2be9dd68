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
from llama_demo.reasons import Reason
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
        raise BadExamples(Reason("examples.no_list"))
    if not FEWEST_EXAMPLES <= len(value) <= MOST_EXAMPLES:
        raise BadExamples(Reason("examples.count", fewest=FEWEST_EXAMPLES, most=MOST_EXAMPLES, count=len(value)))
    texts, names = [], []
    for number, row in enumerate(value, 1):
        if not isinstance(row, Mapping):
            raise BadExample(Reason("example.no_pair"), number)
        label = row.get("label")
        if not isinstance(label, str) or not label.strip():
            raise BadExample(Reason("example.no_label"), number)
        texts.append(checked(row.get("text"), number, limits))
        check_text(label)
        names.append(label.strip())
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise BadExamples(Reason("examples.long", most=MOST_CHARACTERS))
    counts = Counter(names)
    if len(counts) == 1:
        raise BadExamples(Reason("examples.one_label", name=names[0]))
    check_names(counts)
    for name, count in counts.items():
        if count == 1:
            raise BadExample(Reason("example.alone", name=name), names.index(name) + 1)
    labels = tuple(sorted(counts))
    places = {name: place for place, name in enumerate(labels)}
    return Examples(tuple(texts), labels, tuple(places[name] for name in names))

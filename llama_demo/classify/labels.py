"""Labels as people give them, checked. It knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llama_demo.errors import BadLabels
from llama_demo.reasons import Reason
from llama_demo.values import check_text

MOST_LABELS = 200
MOST_LABEL_CHARACTERS = 200
MOST_DESCRIPTION_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    description: str = ""


def labels_from(value: object) -> tuple[Label, ...]:
    """Reads a list of names, or of {name, description}. Raises `BadLabels`, `InvalidUnicode`."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise BadLabels(Reason("labels.no_list"))
    labels = tuple(_label(entry) for entry in value)
    check_names(label.name for label in labels)
    return labels


def check_names(names: Iterable[str]) -> None:
    """Raises `BadLabels` for fewer than 2, more than 200, an empty one, or one that is there twice."""
    seen: set[str] = set()
    for name in names:
        if not name:
            raise BadLabels(Reason("labels.empty"))
        if len(name) > MOST_LABEL_CHARACTERS:
            raise BadLabels(Reason("labels.long", most=MOST_LABEL_CHARACTERS))
        if name in seen:
            raise BadLabels(Reason("labels.twice", name=name))
        seen.add(name)
    if not 2 <= len(seen) <= MOST_LABELS:
        raise BadLabels(Reason("labels.count", most=MOST_LABELS, count=len(seen)))


def _label(entry: object) -> Label:
    name, description = entry, ""
    if isinstance(entry, Mapping):
        name, description = entry.get("name"), entry.get("description") or ""
    if not isinstance(name, str) or not isinstance(description, str):
        raise BadLabels(Reason("labels.no_text"))
    if len(description) > MOST_DESCRIPTION_CHARACTERS:
        raise BadLabels(Reason("labels.long_description", most=MOST_DESCRIPTION_CHARACTERS))
    check_text(name)
    check_text(description)
    return Label(name.strip(), description.strip())

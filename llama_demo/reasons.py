"""Why something was refused: a key of the message table and its data, which an error carries and the edge words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Reason:
    """The words are those of `reason.KEY`, without a full stop: they stand in the middle of an error's own."""

    key: str
    data: Mapping[str, object]

    def __init__(self, key: str, /, **data: object) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "data", data)

    def __repr__(self) -> str:
        return f"Reason({', '.join([self.key, *(f'{name}={value!r}' for name, value in self.data.items())])})"

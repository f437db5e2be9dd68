"""Which idle models must go for another: arithmetic on what each holds and when it was last used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Idle:
    """A resident that nobody leases; `since` is the clock's reading at its last release."""

    bytes: int
    since: float


def choose_evictions(needed_bytes: int, free_bytes: int, idle: Sequence[Idle]) -> list[int] | None:
    """Which of `idle` (as indices) must go for `needed_bytes`, the least recently used first; None when all of them
    together are not enough, and then none should go."""
    chosen: list[int] = []
    for index in sorted(range(len(idle)), key=lambda index: idle[index].since):
        if needed_bytes <= free_bytes:
            break
        chosen.append(index)
        free_bytes += idle[index].bytes
    return chosen if needed_bytes <= free_bytes else None

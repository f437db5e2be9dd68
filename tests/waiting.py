"""Waiting for what another thread or process does, on a machine that may be slow."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""Longer than anything takes that is waited for here: it only ends a test that would hang."""
_LOOK_SECONDS = 0.01


def wait_until(what: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once `what` is so."""
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at, "it has not come to pass"
        time.sleep(_LOOK_SECONDS)


def happens_within(seconds: float, what: Callable[[], bool]) -> bool:
    """Whether `what` is so within `seconds` of this process's own time: while a busy machine gives it no turn, that
    stands still, as it does for what is looked at."""
    for _ in range(int(seconds / _LOOK_SECONDS)):
        if what():
            return True
        time.sleep(_LOOK_SECONDS)
    return what()

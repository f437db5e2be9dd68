"""How far a command is, on stderr: one line that is written over on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_AGAIN_SECONDS = 0.1
_STEPS = 10
"""Where nobody watches, in a log, this many lines tell of the progress."""

Worded = Callable[[int, int, float], str]
"""The words for how much is done, of how much, and after how many seconds."""


class ProgressLine:
    """Shows what `worded` says."""

    def __init__(
        self, worded: Worded, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worded, self._stream, self._clock = worded, stream or sys.stderr, clock
        self._started = clock()
        self._shown = -1.0
        self._step = 0

    def report(self, done: int, total: int) -> None:
        """May be called many times a second, from any thread."""
        now, step = self._clock(), done * _STEPS // max(1, total)
        watched = self._stream.isatty()
        if not done or ((now - self._shown < _AGAIN_SECONDS) if watched else step <= self._step):
            return
        self._shown, self._step = now, step
        text = self._worded(done, total, now - self._started)
        self._stream.write(f"\r{text}\033[K" if watched else f"{text}\n")
        self._stream.flush()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown >= 0 and self._stream.isatty():
            self._stream.write("\r\033[K")
            self._stream.flush()

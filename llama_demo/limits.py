"""How much one request may ask for, how many are answered side by side, and who is next. It knows no model."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llama_demo.errors import Busy, MessageTooLong
from llama_demo.values import Sampling, Turn

_SMOOTHING = 0.2
"""Weight of the newest request in the running mean of how long one takes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    message_characters: int
    max_new_tokens: int
    context_tokens: int

    def check(self, turns: Sequence[Turn]) -> None:
        """Raises `MessageTooLong` for a conversation of more characters than this server reads."""
        self.check_characters(sum(len(turn.content) for turn in turns))

    def check_characters(self, characters: int) -> None:
        """Raises `MessageTooLong` for a text of more characters than this server reads."""
        if characters > self.message_characters:
            raise MessageTooLong(characters, self.message_characters)

    def clamp(self, sampling: Sampling) -> Sampling:
        """`sampling` with no more new tokens than this server gives one request."""
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, self.max_new_tokens))


class Admission:
    """A line of requests, first come, first served, with so many answered side by side.

    It is polled rather than awaited, so that it belongs to no event loop, and every call returns at once.
    """

    def __init__(self, concurrent: int, queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._concurrent = concurrent
        self._queue = queue
        self._clock = clock
        self._lock = threading.Lock()
        self._line: OrderedDict[Place, None] = OrderedDict()
        self._active: set[Place] = set()
        self._mean_seconds: float | None = None

    def enter(self) -> Place:
        """A place in the line. Raises `Busy` where the line is full."""
        with self._lock:
            if (busy := self._busy()) is not None:
                raise busy
            place = Place(self, self._clock())
            self._line[place] = None
            self._admit()
            return place

    @property
    def active(self) -> int:
        """How many are answered now."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def refusal(self) -> Busy | None:
        """The error that `enter` would raise now."""
        with self._lock:
            return self._busy()

    def leave(self, place: Place) -> None:
        """Gives `place` up; one that has left already is nothing to do."""
        with self._lock:
            self._line.pop(place, None)
            if place in self._active:
                self._active.remove(place)
                self._learn(self._clock() - place.started)
            self._admit()

    def position(self, place: Place) -> tuple[int, float | None]:
        """0 once admitted, else the place counted from 1, with a guess of the seconds to go."""
        with self._lock:
            if place not in self._line:
                return 0, None
            number = list(self._line).index(place) + 1
            return number, self._guess(number)

    def _busy(self) -> Busy | None:
        if len(self._active) < self._concurrent or len(self._line) < self._queue:
            return None
        return Busy(len(self._line), self._guess(len(self._line) + 1) or 1.0)

    def _admit(self) -> None:
        while self._line and len(self._active) < self._concurrent:
            place, _ = self._line.popitem(last=False)
            place.started = self._clock()
            self._active.add(place)

    def _learn(self, seconds: float) -> None:
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else mean + _SMOOTHING * (seconds - mean)

    def _guess(self, number: int) -> float | None:
        """One of the active requests ends every mean / concurrent seconds."""
        return None if self._mean_seconds is None else self._mean_seconds * number / self._concurrent


class Place:
    """One request's place in the line."""

    __slots__ = ("_admission", "started")

    def __init__(self, admission: Admission, started: float) -> None:
        self._admission = admission
        self.started = started

    def position(self) -> tuple[int, float | None]:
        return self._admission.position(self)

    def leave(self) -> None:
        """Gives the place up; may be called twice."""
        self._admission.leave(self)

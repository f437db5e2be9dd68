"""How much one request may ask for, how many are answered side by side, and who is next. It knows no model."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llama_demo.budgets import Allowance, Budgets
from llama_demo.errors import Busy, LlamaDemoError, MessageTooLong
from llama_demo.values import Sampling, Turn
from llama_demo.visitors import NOBODY, Visitor

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
    """A line of requests, with so many answered side by side. Visitors take turns: whoever asks for much waits for it
    behind those who ask for little.

    It belongs to no event loop: every call returns at once, and who waits is called.
    """

    def __init__(
        self,
        concurrent: int,
        queue: int,
        clock: Callable[[], float] = time.monotonic,
        allowance: Allowance | None = None,
    ) -> None:
        """`allowance` is what each visitor may have of it; the owner may have all."""
        self._concurrent = concurrent
        self._queue = queue
        self._clock = clock
        self._allowance = allowance
        self._budgets = None if allowance is None else Budgets(allowance)
        self._lock = threading.Lock()
        self._lines: OrderedDict[str, deque[Place]] = OrderedDict()
        """By visitor; whose turn is next comes first."""
        self._taken = 0
        """Places that the first visitor has been given in this turn."""
        self._active: set[Place] = set()
        self._active_of: Counter[str] = Counter()
        self._mean_seconds: float | None = None
        self._closing: LlamaDemoError | None = None

    def enter(
        self,
        visitor: Visitor = NOBODY,
        end: Callable[[LlamaDemoError], None] | None = None,
        call: Callable[[], None] | None = None,
    ) -> Place:
        """A place in the line. `end` is told when the request must end, and why; `call`, that its turn has come, or
        that there will be none. It is called from any thread, and may not block.

        Raises `Busy` where the line is full, `TooManyRequests`, and what `close` was given.
        """
        with self._lock:
            if (refusal := self._refusal(visitor)) is not None:
                raise refusal
            if self._budgets is not None and not visitor.is_owner:
                self._budgets.take(visitor, self._clock())
            place = Place(self, visitor, end, call)
            self._lines.setdefault(visitor.key, deque()).append(place)
            self._admit()
            return place

    @property
    def active(self) -> int:
        """How many are answered now."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return self._waiting()

    def refusal(self) -> LlamaDemoError | None:
        """The error that a new visitor would meet in `enter` now."""
        with self._lock:
            return self._refusal(NOBODY)

    def spend(self, visitor: Visitor, tokens: int) -> None:
        """Counts tokens that were read or written for `visitor`."""
        with self._lock:
            if self._budgets is not None and not visitor.is_owner:
                self._budgets.spend(visitor, tokens, self._clock())

    def seconds_for(self, visitor: Visitor) -> float | None:
        """How long one request of `visitor` may be answered."""
        return None if self._allowance is None or visitor.is_owner else self._allowance.request_seconds

    def close(self, error: LlamaDemoError) -> None:
        """Refuses new requests and those that wait with `error`; those that are answered go on."""
        with self._lock:
            self._closing = error
            left = [place for line in self._lines.values() for place in line]
            self._lines.clear()
        for place in left:
            place.call()

    def end_all(self, error: LlamaDemoError) -> None:
        """Tells those that are answered to end."""
        with self._lock:
            ends = [place.end for place in self._active if place.end is not None]
        for end in ends:
            end(error)

    def leave(self, place: Place) -> None:
        """Gives `place` up; one that has left already is nothing to do."""
        with self._lock:
            line = self._lines.get(place.visitor.key, ())
            if place in line:
                line.remove(place)  # type: ignore[union-attr]
                self._drop_if_empty(place.visitor.key)
            if place in self._active:
                self._active.remove(place)
                self._active_of[place.visitor.key] -= 1
                if not self._active_of[place.visitor.key]:
                    del self._active_of[place.visitor.key]
                self._learn(self._clock() - place.started)
            self._admit()

    def position(self, place: Place) -> tuple[int, float | None]:
        """0 once admitted, else the place counted from 1 as turns are taken, with a guess of the seconds to go.

        Raises what `close` was given.
        """
        with self._lock:
            if place in self._active:
                return 0, None
            if self._closing is not None:
                raise self._closing
            line = self._lines.get(place.visitor.key)
            if line is None or place not in line:
                return 0, None
            number = self._number(place, line.index(place))
            return number, self._guess(number)

    def _number(self, place: Place, index: int) -> int:
        """How many are admitted until `place` is, which has `index` of its own visitor's before it."""
        weight, front = place.visitor.weight, next(iter(self._lines))
        rounds = (index + (self._taken if place.visitor.key == front else 0)) // weight
        before, number = True, index + 1
        for key, line in self._lines.items():
            if key == place.visitor.key:
                before = False
            else:
                had = self._taken if key == front else 0
                number += min(len(line), line[0].visitor.weight * (rounds + before) - had)
        return number

    def _refusal(self, visitor: Visitor) -> LlamaDemoError | None:
        if self._closing is not None:
            return self._closing
        own = len(self._lines.get(visitor.key, ()))
        if not own and len(self._active) < self._concurrent and self._has_share(visitor):
            return None
        waiting = self._waiting()
        if waiting >= self._queue:
            return Busy(waiting, self._guess(waiting + 1) or 1.0)
        if self._allowance is not None and not visitor.is_owner and own >= self._allowance.waiting * visitor.weight:
            return Busy(own, self._guess(own + 1) or 1.0)
        return None

    def _has_share(self, visitor: Visitor) -> bool:
        """Whether `visitor` may have one more answered beside those of the same visitor."""
        if self._allowance is None or visitor.is_owner:
            return True
        return self._active_of[visitor.key] < self._allowance.concurrent * visitor.weight

    def _admit(self) -> None:
        while len(self._active) < self._concurrent and (key := self._next()) is not None:
            place = self._lines[key].popleft()
            place.started = self._clock()
            self._active.add(place)
            self._active_of[key] += 1
            place.call()
            self._end_turn(key, place.visitor.weight)

    def _next(self) -> str | None:
        """The first in turn who may have one more."""
        return next((key for key, line in self._lines.items() if self._has_share(line[0].visitor)), None)

    def _end_turn(self, key: str, weight: int) -> None:
        """A turn is `weight` places, or fewer where the line has no more, or where others stand before it."""
        first = next(iter(self._lines)) == key
        self._taken += first
        if not first or self._taken >= weight or not self._lines[key]:
            self._lines.move_to_end(key)
            self._taken = 0 if first else self._taken
        self._drop_if_empty(key)

    def _drop_if_empty(self, key: str) -> None:
        if key in self._lines and not self._lines[key]:
            if next(iter(self._lines)) == key:
                self._taken = 0
            del self._lines[key]

    def _waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def _learn(self, seconds: float) -> None:
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else mean + _SMOOTHING * (seconds - mean)

    def _guess(self, number: int) -> float | None:
        """One of the active requests ends every mean / concurrent seconds."""
        return None if self._mean_seconds is None else self._mean_seconds * number / self._concurrent


class Place:
    """One request's place in the line."""

    __slots__ = ("_admission", "call", "end", "started", "visitor")

    def __init__(
        self,
        admission: Admission,
        visitor: Visitor,
        end: Callable[[LlamaDemoError], None] | None,
        call: Callable[[], None] | None,
    ) -> None:
        self._admission = admission
        self.visitor = visitor
        self.end = end
        self.call = call or _nobody_waits
        self.started = 0.0

    def position(self) -> tuple[int, float | None]:
        return self._admission.position(self)

    def leave(self) -> None:
        """Gives the place up; may be called twice."""
        self._admission.leave(self)


def _nobody_waits() -> None:
    """For a place that is looked at, and not waited for."""

"""One request's tokens or pieces of text, on their way from the thread that makes them to whoever reads them, blocking
or async."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from llama_demo.values import FinishReason, Token

T = TypeVar("T")


class Stream(Generic[T]):
    """A single reader's queue that also carries the end and exceptions.

    The engine calls `put`, then `finish` or `fail`, once. The reader either iterates (blocking) or awaits `read`.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self._tokens: deque[T] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None
        self._gathering = False
        self._error: BaseException | None = None
        self.finish_reason: FinishReason | None = None
        self.end: T | None = None
        """The model's own end token, where one ended it: it is not among the tokens."""
        self.steps = 0
        """Tokens the engine has made for this request so far: it stands still once the request is cancelled."""

    # The engine's side.

    def put(self, tokens: Iterable[T]) -> None:
        with self._changed:
            before = len(self._tokens)
            self._tokens.extend(tokens)
            self.steps += len(self._tokens) - before
            self._notify(wake=not self._gathering)

    def finish(self, reason: FinishReason, end: T | None = None) -> None:
        with self._changed:
            if not self.ended:
                self.finish_reason, self.end = reason, end
                self._notify()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            if not self.ended:
                self._error = error
                self._notify()

    # The reader's side.

    @property
    def ended(self) -> bool:
        """The engine has said the last word; tokens may still wait to be read."""
        return self.finish_reason is not None or self._error is not None

    @property
    def drained(self) -> bool:
        """Ended well, and everything has been read. A stream that failed never drains: its error is yet to be read."""
        return self.finish_reason is not None and not self._tokens

    def cancel(self) -> None:
        """Asks the engine to stop this request; returns at once, and may be called twice."""
        if not self.ended:
            self._on_cancel()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tokens or self.ended)
                tokens = self._take()
            if not tokens:
                return
            yield from tokens

    async def read(self, timeout_seconds: float, *, gather: bool = False) -> list[T]:
        """All tokens there are, waiting for at least one; empty when the time is up or the stream has drained.

        With `gather` tokens do not end the wait: they pile up until the time is up or the stream ends, so that a
        reader with many neighbours wakes seldom and yet hears of the end at once.
        Raises what the engine failed with, after the last token.
        """
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            if self.ended or (self._tokens and not gather):
                return self._take()
            self._gathering = gather
            self._wake = lambda: _wake_loop(loop, ready)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), timeout_seconds)
        with self._changed:
            self._wake = None
            return self._take()

    def _take(self) -> list[T]:
        tokens = list(self._tokens)
        self._tokens.clear()
        if not tokens and self._error is not None:
            raise self._error
        return tokens

    def _notify(self, *, wake: bool = True) -> None:
        self._changed.notify_all()
        if wake and self._wake is not None:
            self._wake()
            self._wake = None


TokenStream = Stream[Token]


def _wake_loop(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(ready.set)
    except RuntimeError:
        """The reader's loop has closed: there is nobody left to wake."""

"""Another server as an engine: text in, text out, over OpenAI's API. It has no tokens, no scores and no hidden states.

It knows one server, whether it is there, and the requests to it; what the server can do is found by `remote_probe`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llama_demo.catalog import Entry
from llama_demo.engines.remote_messages import Answered, Ask, Piece, messages, parameters, read_piece
from llama_demo.engines.stream import Stream
from llama_demo.errors import Closing, LlamaDemoError, Unsupported
from llama_demo.observe import LOG
from llama_demo.remote_errors import (
    RemoteBusy,
    RemoteDown,
    RemoteGarbled,
    RemoteLocked,
    RemoteLost,
    RemoteUnavailable,
)
from llama_demo.values import FinishReason, Turn

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from llama_demo.engines.remote_probe import Found

T = TypeVar("T")
TextStream = Stream[Piece]

_LONGEST_SECONDS = 60.0
"""No look at a server and no count takes so long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. A stream that is silent for `quiet` has its server looked for; `connect` later at most it is known."""

    connect: float = 2.5
    check: float = 5.0
    quiet: float = 2.0
    answer: float = 60.0
    watch: float = 20.0
    """Between two looks at a server that is there."""
    again: float = 1.0
    """Before the first look at one that is not; then twice as long each time, up to `rarely`."""
    rarely: float = 30.0
    hold: float = 5.0
    """The longest `Retry-After` that is waited for: a longer one is passed on."""


class RemoteServer:
    """The server of one entry. Its public methods may be called from any thread."""

    def __init__(self, entry: Entry, token: str, loop: asyncio.AbstractEventLoop, patience: Patience) -> None:
        self.entry = entry
        self.found: Found | None = None
        """None until it has answered for the first time."""
        self.down: LlamaDemoError | None = None
        """Why it cannot be used now; None while it can."""
        self._token, self._loop, self._patience = token, loop, patience
        self._free_at = 0.0
        self._checking: asyncio.Task[None] | None = None
        self._client: AsyncOpenAI | None = None
        self._wake = asyncio.Event()
        self._streams: set[TextStream] = set()

    def ask(self, ask: Ask) -> TextStream:
        """Starts a request and returns at once. What is cancelled ends at the server, too: its connection is closed.

        The stream raises `RemoteUnavailable`, `RemoteRefused`, `Unsupported`, `UnsupportedParameter`.
        """
        running: list[Future[None]] = []
        stream = TextStream(lambda: _cancel(running))
        running.append(self._start(self._feed(ask, stream)))
        self._streams.add(stream)
        running[0].add_done_callback(lambda _: self._ended(stream))
        return stream

    @property
    def active(self) -> int:
        """Requests in flight."""
        return len(self._streams)

    def look(self) -> Future[None]:
        """Looks whether the server is there and has the model. Raises `Closing`; the future raises
        `RemoteUnavailable`."""
        return self._start(self._check_up())

    def count(self, turns: Sequence[Turn]) -> int:
        """The tokens of a conversation as the model's template has it; blocks. Only where `found.counts_tokens`.

        Raises `RemoteUnavailable`, `RemoteRefused`."""
        return _result(self._start(self._count(turns)))

    def end(self, error: LlamaDemoError) -> None:
        """Fails every request in flight."""
        for stream in tuple(self._streams):
            stream.fail(error)

    # On the loop.

    async def watch(self) -> None:
        """Looks at the server for ever: seldom while it is there, and soon, then ever more seldom, while it is not."""
        failures = 0
        while True:
            await self.check()
            failures = failures + 1 if self.down is not None else 0
            longest = min(self._patience.rarely, self._patience.again * 2 ** min(failures - 1, 10))
            seconds = longest if failures else self._patience.watch
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds * random.uniform(0.8, 1.0)):
                    await self._wake.wait()
                await asyncio.sleep(self._patience.again)

    async def check(self) -> None:
        """One look for all who want to know: afterwards `down` and `found` are as it is."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._look())
        await asyncio.shield(self._checking)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _check_up(self) -> None:
        await self.check()
        if self.down is not None:
            raise type(self.down)(**self.down.data())

    async def _look(self) -> None:
        from llama_demo.engines.remote_probe import find

        try:
            async with self._made(self._patience.check) as client:  # a connection of its own: old ones may be dead
                self.found = await find(client, self.entry)
        except Exception as error:
            self._is_down(self._failure(error))
            return
        if self.down is not None:
            LOG.info("model=%s its server is there again", self.entry.name)
        self.down = None

    async def _count(self, turns: Sequence[Turn]) -> int:
        from llama_demo.engines.remote_probe import count

        try:
            return await count(self._shared(), self.entry, {"messages": messages(turns)})
        except Exception as error:
            raise self._failure(error) from None

    async def _feed(self, ask: Ask, stream: TextStream) -> None:
        try:
            async with await self._open(ask) as chunks:
                stream.finish(await self._read(chunks, stream, ask))
        except Exception as error:
            failure = self._failure(error)
            if isinstance(failure, RemoteUnavailable) and not isinstance(failure, RemoteBusy):
                self._doubt(failure)
            stream.fail(failure)

    async def _open(self, ask: Ask) -> Any:
        """The stream, opened. Nothing has come of it yet, so it is tried a second time where that may help: after a
        wait that the server asks for, and where it closed a connection that was kept from before."""
        for is_last in (False, True):
            await self._hold()
            try:
                return await self._patiently(self._create(ask))
            except Exception as error:
                failure = self._failure(error)
                if isinstance(failure, RemoteBusy):
                    self._free_at = max(self._free_at, self._loop.time() + failure.seconds)
                if is_last or not isinstance(failure, RemoteBusy | RemoteLost):
                    raise failure from None
        raise AssertionError("the second time it has returned or raised")

    async def _hold(self) -> None:
        """Waits as long as the server has asked to be left alone. Raises `RemoteBusy` where that is long."""
        seconds = self._free_at - self._loop.time()
        if seconds > self._patience.hold:
            raise RemoteBusy(self.entry.name, seconds)
        if seconds > 0:
            await asyncio.sleep(seconds * random.uniform(1.0, 1.2))

    async def _create(self, ask: Ask) -> Any:
        has_extensions = self.found is not None and self.found.has_extensions
        given = parameters(ask, self.entry.remote_model, has_extensions=has_extensions)
        client = self._shared()
        return await (client.chat.completions if ask.turns else client.completions).create(**given)

    async def _read(self, chunks: Any, stream: TextStream, ask: Ask) -> FinishReason:
        finish: FinishReason | None = None
        answer, events = Answered(), aiter(chunks)
        while (chunk := await self._following(events, finish)) is not None:
            try:
                piece = read_piece(chunk)
            except ValueError:
                raise RemoteGarbled(self.entry.name) from None
            finish = piece.finish or finish
            answer.add(piece)
            stream.put([piece])
        if finish is None:
            raise RemoteLost(self.entry.name)
        if (lacking := answer.lacks(ask)) is not None:
            raise Unsupported(f"{lacking}, as its server gives none", self.entry.title)
        return finish

    async def _following(self, events: Any, finish: FinishReason | None) -> Any:
        """The next event; None at the end. An answer that has ended needs no more than its counts."""
        try:
            return await self._patiently(anext(events, None))
        except Exception:
            if finish is None:
                raise
            return None

    async def _patiently(self, waited: Awaitable[T]) -> T:
        """What `waited` gives. Raises `RemoteLost` where it is silent and nobody answers at the server's address."""
        task = asyncio.ensure_future(waited)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._patience.quiet)
                if not task.done():
                    await self.check()
                    if isinstance(self.down, RemoteDown):
                        raise RemoteLost(self.entry.name)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _shared(self) -> AsyncOpenAI:
        if self._client is None:
            self._client = self._made(self._patience.answer)
        return self._client

    def _made(self, read_seconds: float) -> AsyncOpenAI:
        """A client that goes to the entry's address and nowhere else, with the entry's token and no other."""
        import openai

        if self.entry.token_variable and not self._token:
            raise RemoteLocked(self.entry.name, self.entry.token_variable)
        timeout = openai.Timeout(read_seconds, connect=self._patience.connect)
        return openai.AsyncOpenAI(
            base_url=self.entry.base_url,
            api_key=self._token or "none",
            organization="",
            project="",
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout),
        )

    def _failure(self, error: Exception) -> LlamaDemoError:
        from llama_demo.engines.remote_failures import failure

        return failure(
            error,
            self.entry.name,
            token=self._token,
            variable=self.entry.token_variable,
            waited_seconds=self._patience.answer,
        )

    def _doubt(self, failure: RemoteUnavailable) -> None:
        """A request has failed: the server counts as down until it has been looked at, which is soon."""
        if not isinstance(self.down, RemoteDown):
            self._is_down(RemoteUnavailable(self.entry.name) if isinstance(failure, RemoteLost) else failure)
        self._wake.set()

    def _is_down(self, error: LlamaDemoError) -> None:
        if type(self.down) is not type(error):
            LOG.warning("model=%s its server cannot be used: %s", self.entry.name, type(error).__name__)
        self.down = error

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise Closing() from None

    def _ended(self, stream: TextStream) -> None:
        stream.finish("cancelled")
        self._streams.discard(stream)


def _result(running: Future[T]) -> T:
    """Blocks. Raises `Closing` where the loop ends before it has run."""
    try:
        return running.result(_LONGEST_SECONDS)
    except (TimeoutError, CancelledError):
        raise Closing() from None


def _cancel(running: Sequence[Future[None]]) -> None:
    for one in running:
        one.cancel()

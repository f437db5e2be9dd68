"""Everything between text and token ids: the prompt, what is cut from it, the pieces, the stop strings, the speed.

It knows no page and no protocol: the page, the Gradio API and the HTTP API all read the same updates from here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llama_demo import prompts
from llama_demo.detokenize import PieceStream, StopStrings
from llama_demo.engines.stream import TokenStream
from llama_demo.errors import EmptyMessage
from llama_demo.limits import Admission, Limits, Place
from llama_demo.loading import LoadedModel
from llama_demo.observe import LOG, one_line
from llama_demo.registry import Lease, Registry
from llama_demo.values import (
    SEED_LIMIT,
    ChatUpdate,
    FinishReason,
    LoadProgress,
    Reply,
    Sampling,
    Speed,
    Token,
    Turn,
    Waiting,
)

UPDATE_SECONDS = 0.1
"""A reply is shown anew so often where there are few readers."""
UPDATES_PER_SECOND = 60
"""All readers together get no more updates than this: each costs the page's server about a millisecond."""
SLOWEST_UPDATE_SECONDS = 0.8
"""However many read: a closed tab must be noticed within a second."""
OFF_LOOP_CHARACTERS = 20_000
"""A longer conversation is encoded in a thread, so that the others' streams do not pause."""


class Stopper:
    """Ends one reply from another handler: at once, without waiting for the reply's next update."""

    def __init__(self) -> None:
        self.stopped = False
        self._stream: TokenStream | None = None

    def stop(self) -> None:
        self.stopped = True
        if self._stream is not None:
            self._stream.cancel()

    def attach(self, stream: TokenStream) -> None:
        self._stream = stream
        if self.stopped:
            stream.cancel()


class Generation:
    """Chat on leased models."""

    def __init__(
        self, registry: Registry[LoadedModel], limits: Limits, admission: Admission, *, log_prompts: bool = False
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._admission = admission
        self._log_prompts = log_prompts

    async def chat(
        self,
        turns: Sequence[Turn],
        *,
        model: str,
        sampling: Sampling,
        continue_last: bool = False,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[ChatUpdate, None]:
        """The reply to `turns`, as it grows: first, where they apply, the place in the line and the load's progress.

        While nothing happens the same update comes again, so that whoever reads can leave. Closing the generator
        cancels the request; it sets flags only and never blocks. `continue_last` goes on with the last turn, which
        must be the assistant's; the reply's text then begins with it.

        Raises `InvalidInput` for what the caller sent, `Busy`, and whatever loading the model raises.
        """
        if not turns or (turns[-1].role == "assistant") != continue_last:
            raise EmptyMessage()
        self._limits.check(turns)
        stopper = stopper or Stopper()
        place = self._admission.enter()
        try:
            async with aclosing(self._wait(place, stopper)) as waits:
                async for waiting in waits:
                    yield waiting
            async with aclosing(self._lease(model, stopper)) as loads:
                async for lease in loads:
                    if isinstance(lease, LoadProgress):
                        yield lease
                        continue
                    request = _Request(tuple(turns), self._limits.clamp(sampling), continue_last)
                    async with aclosing(self._answer(lease.value, request, stopper)) as replies:
                        async for reply in replies:
                            yield reply
        finally:
            place.leave()

    async def _wait(self, place: Place, stopper: Stopper) -> AsyncGenerator[Waiting, None]:
        while not stopper.stopped:
            number, seconds = place.position()
            if number == 0:
                return
            yield Waiting(number, seconds)
            await asyncio.sleep(self.update_seconds())

    async def _lease(self, model: str, stopper: Stopper) -> AsyncGenerator[LoadProgress | Lease[LoadedModel], None]:
        """The load's progress, then the lease, which is given back when the generator is closed."""
        ticket = self._registry.request(model)
        try:
            while (lease := ticket.poll()) is None and not stopper.stopped:
                yield ticket.progress
                await asyncio.sleep(self.update_seconds())
            if lease is not None:
                with lease:
                    yield lease
        finally:
            ticket.cancel()

    async def _answer(self, loaded: LoadedModel, request: _Request, stopper: Stopper) -> AsyncGenerator[Reply, None]:
        started = time.monotonic()
        slow = sum(len(turn.content) for turn in request.turns) > OFF_LOOP_CHARACTERS
        prepared = await asyncio.to_thread(_prepare, loaded, request) if slow else _prepare(loaded, request)
        stream = loaded.engine.generate(prepared.prompt.ids, prepared.sampling)
        stopper.attach(stream)
        writer = _Writer(loaded, prepared, started)
        try:
            while not stream.drained:
                writer.add(await stream.read(self.update_seconds(), gather=writer.new_tokens > 0))
                if writer.complete:
                    stream.cancel()
                    break
                if not stream.drained:
                    yield writer.reply(None)
            reply = writer.end(stream.finish_reason)
            self._log(reply, request)
            yield reply
        finally:
            stream.cancel()

    def update_seconds(self) -> float:
        """Seconds between two updates of one reply: longer as readers grow, so that all together stay affordable."""
        return min(SLOWEST_UPDATE_SECONDS, max(UPDATE_SECONDS, self._admission.active / UPDATES_PER_SECOND))

    def _log(self, reply: Reply, request: _Request) -> None:
        LOG.info(
            "chat model=%s prompt_tokens=%d new_tokens=%d finish=%s",
            one_line(reply.model),
            reply.prompt_tokens,
            reply.new_tokens,
            reply.finish,
        )
        if self._log_prompts:
            LOG.info("chat message=%s reply=%s", one_line(request.turns[-1].content), one_line(reply.text))


@dataclass(frozen=True, slots=True)
class _Request:
    turns: tuple[Turn, ...]
    sampling: Sampling
    continue_last: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    prompt: prompts.Prompt
    sampling: Sampling
    dropped_turns: int
    begins_with: str


def _prepare(loaded: LoadedModel, request: _Request) -> _Prepared:
    """The prompt with as many turns as fit beside the reply, and the sampling with a seed and the room there is.

    A quarter of the context at most is kept free for the reply; a longer one gets what the prompt leaves.
    """

    def render(turns: Sequence[Turn]) -> prompts.Prompt:
        return prompts.render(loaded.tokenizer, turns, continue_last=request.continue_last)

    context_tokens = loaded.engine.context_tokens
    reserved = min(request.sampling.max_new_tokens, context_tokens // 4)
    kept, dropped = prompts.fit(request.turns, context_tokens - reserved, lambda turns: len(render(turns).ids))
    prompt = render(kept)
    seed = random.randrange(SEED_LIMIT) if request.sampling.seed is None else request.sampling.seed
    room = context_tokens - len(prompt.ids)
    sampling = replace(request.sampling, max_new_tokens=min(request.sampling.max_new_tokens, room), seed=seed)
    return _Prepared(prompt, sampling, dropped, request.turns[-1].content if request.continue_last else "")


class _Writer:
    """Turns one request's tokens into the reply so far, and measures how fast they come."""

    def __init__(self, loaded: LoadedModel, prepared: _Prepared, started: float) -> None:
        self._loaded = loaded
        self._prepared = prepared
        self._pieces = PieceStream(loaded.tokenizer)
        self._stops = StopStrings(prepared.prompt.stops)
        self._text = prepared.begins_with
        self._started = started
        self._first = self._last = started
        self.new_tokens = 0
        self.complete = False
        """A stop string has been met: nothing after it belongs to the reply."""

    def add(self, tokens: Sequence[Token]) -> None:
        if not tokens or self.complete:
            return
        self._last = time.monotonic()
        if self.new_tokens == 0:
            self._first = self._last
        self.new_tokens += len(tokens)
        text, self.complete = self._stops.add(self._pieces.add([token.id for token in tokens]))
        self._text += text

    def end(self, reason: FinishReason | None) -> Reply:
        if self.complete:
            return self.reply("stop")
        text, hit = self._stops.add(self._pieces.end())
        self._text += text if hit else text + self._stops.end()
        return self.reply("stop" if hit else reason or "cancelled")

    def reply(self, finish: FinishReason | None) -> Reply:
        return Reply(
            text=self._text,
            model=self._loaded.entry.name,
            prompt_tokens=len(self._prepared.prompt.ids),
            new_tokens=self.new_tokens,
            context_tokens=self._loaded.engine.context_tokens,
            dropped_turns=self._prepared.dropped_turns,
            finish=finish,
            speed=self._speed(),
            seed=self._prepared.sampling.seed,
            prompt=self._prepared.prompt.text,
        )

    def _speed(self) -> Speed | None:
        if self.new_tokens == 0:
            return None
        elapsed = self._last - self._first
        return Speed(self._first - self._started, (self.new_tokens - 1) / elapsed if elapsed > 0 else 0.0)

"""A conversation's next reply: as many turns as fit, one stream of tokens, the reply as it grows. It knows no line."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from llama_demo import prompts
from llama_demo.generation.writer import Writer
from llama_demo.leasing import SLOWEST_UPDATE_SECONDS, Stopper
from llama_demo.loading import LoadedModel
from llama_demo.values import SEED_LIMIT, FinishReason, Reply, Sampling, Speed, Turn

OFF_LOOP_CHARACTERS = 20_000
"""A longer text is encoded in a thread, so that the others' streams do not pause."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is to be answered. `continue_last` goes on with the last turn."""

    turns: tuple[Turn, ...]
    sampling: Sampling
    continue_last: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    prompt: prompts.Prompt
    sampling: Sampling
    dropped_turns: int
    begins_with: str


async def answer(
    loaded: LoadedModel, request: ChatRequest, stopper: Stopper, update_seconds: Callable[[], float]
) -> AsyncGenerator[Reply, None]:
    """The reply so far, again and again; the last one has a `finish`. Closing it cancels the request.

    Before the first token there is nothing to show: an update then only lets a reader leave, and the page's server has
    the requests of a crowd to take in.
    """
    started = time.monotonic()
    slow = sum(len(turn.content) for turn in request.turns) > OFF_LOOP_CHARACTERS
    prepared = await asyncio.to_thread(_prepare, loaded, request) if slow else _prepare(loaded, request)
    stream = loaded.engine.generate(prepared.prompt.ids, prepared.sampling)
    stopper.attach(stream)
    begun = prepared.begins_with
    after = prepared.prompt.ids if begun else ()
    writer = Writer(loaded.tokenizer, prepared.prompt.stops, after=after, begins_with=begun)
    try:
        while not stream.drained:
            seconds = update_seconds() if writer.ids else SLOWEST_UPDATE_SECONDS
            writer.add(await stream.read(seconds, gather=bool(writer.ids)))
            if writer.finish is not None:
                break
            if not stream.drained:
                yield _reply(loaded, prepared, writer, started)
        writer.end(stream.finish_reason)
        yield _reply(loaded, prepared, writer, started, writer.finish)
    finally:
        stream.cancel()


def _prepare(loaded: LoadedModel, request: ChatRequest) -> _Prepared:
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


def _reply(
    loaded: LoadedModel, prepared: _Prepared, writer: Writer, started: float, finish: FinishReason | None = None
) -> Reply:
    elapsed = writer.last_time - writer.first_time
    rate = (len(writer.ids) - 1) / elapsed if elapsed > 0 else 0.0
    return Reply(
        text=writer.text,
        model=loaded.entry.name,
        prompt_tokens=len(prepared.prompt.ids),
        new_tokens=len(writer.ids),
        context_tokens=loaded.engine.context_tokens,
        dropped_turns=prepared.dropped_turns,
        finish=finish,
        speed=Speed(writer.first_time - started, rate) if writer.ids else None,
        seed=prepared.sampling.seed,
        prompt=prepared.prompt.text,
    )

"""Continuations of one prompt, side by side: the prompt as the model is to see it, a stream each, all as they grow.

It knows no line, and of conversations only how to put a text through the chat template.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from llama_demo import prompts
from llama_demo.detokenize import PieceStream
from llama_demo.engines.stream import TokenStream
from llama_demo.errors import InvalidParameter, PromptTooLong
from llama_demo.generation.chat import OFF_LOOP_CHARACTERS
from llama_demo.generation.writer import Writer
from llama_demo.leasing import Stopper
from llama_demo.loading import LoadedModel
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import SEED_LIMIT, Completion, CompletionRequest, Continuation, Sampling, Speed, Turn

READ_ONCE_TOKENS = 64
"""A longer prompt is read by the first alternative before the others start, which find it in the engine's cache then:
started together, each would read it for itself."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """`after` are the ids whose text the continuations go on with: none after a template, where a new text begins."""

    text: str
    ids: tuple[int, ...]
    after: tuple[int, ...]
    stops: tuple[str, ...]
    trimmed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Alternative:
    seed: int
    stream: TokenStream
    writer: Writer

    async def read(self, seconds: float) -> None:
        """Takes what has come; sets the writer's `finish` at the end. Raises what the engine failed with."""
        self.writer.add(await self.stream.read(seconds, gather=bool(self.writer.ids)))
        if self.ended:
            self.stream.cancel()
        elif self.stream.drained:
            self.writer.end(self.stream.finish_reason, self.stream.end)

    @property
    def ended(self) -> bool:
        return self.writer.finish is not None

    def continuation(self) -> Continuation:
        writer = self.writer
        ids, logprobs, tokens = tuple(writer.ids), tuple(writer.logprobs), tuple(writer.tokens)
        return Continuation(writer.text, ids, logprobs, writer.finish, self.seed, tokens)


async def complete(
    loaded: LoadedModel,
    request: CompletionRequest,
    sampling: Sampling,
    stopper: Stopper,
    update_seconds: Callable[[], float],
) -> AsyncGenerator[Completion, None]:
    """All continuations so far, again and again; the last is `finished`. Closing it cancels what is in progress.

    `sampling` is the request's within this server's limits. Raises `PromptTooLong`, `InvalidParameter`, `ForgedTurn`.
    """
    started = time.monotonic()
    slow = characters(request) > OFF_LOOP_CHARACTERS
    prepare = asyncio.to_thread(_prepare, loaded, request, sampling) if slow else None
    prepared = _prepare(loaded, request, sampling) if prepare is None else await prepare
    pending = _samplings(sampling, request.n, loaded.engine.context_tokens - len(prepared.ids))
    alternatives: list[_Alternative] = []
    try:
        while pending or not all(one.ended for one in alternatives):
            for _ in range(_ready(alternatives, pending, prepared)):
                alternatives.append(_start(loaded, prepared, pending.pop(0), named=request.named))
                stopper.attach(alternatives[-1].stream)
            opened, seconds = [one for one in alternatives if not one.ended], update_seconds()
            # All are heard before one's failure is told: none of the reads is left behind.
            for heard in await asyncio.gather(*(one.read(seconds) for one in opened), return_exceptions=True):
                if isinstance(heard, BaseException):
                    raise heard
            yield _completion(loaded, prepared, alternatives, pending, started)
    finally:
        for one in alternatives:
            one.stream.cancel()


def characters(request: CompletionRequest) -> int:
    """How long the prompt is, where it is not token ids."""
    if isinstance(request.prompt, str):
        return len(request.prompt)
    return sum(len(turn.content) for turn in request.turns)


def _samplings(sampling: Sampling, count: int, room_tokens: int) -> list[Sampling]:
    """One a continuation: each with a seed of its own, and the room there is."""
    first = random.randrange(SEED_LIMIT) if sampling.seed is None else sampling.seed
    longest = min(sampling.max_new_tokens, room_tokens)
    return [replace(sampling, max_new_tokens=longest, seed=(first + index) % SEED_LIMIT) for index in range(count)]


def _ready(alternatives: Sequence[_Alternative], pending: Sequence[Sampling], prepared: _Prepared) -> int:
    """How many of the pending alternatives start now: all, but for a long prompt one, until it has read the prompt."""
    if len(prepared.ids) <= READ_ONCE_TOKENS:
        return len(pending)
    if not alternatives:
        return 1
    return len(pending) if alternatives[0].ended or alternatives[0].writer.ids else 0


def _start(loaded: LoadedModel, prepared: _Prepared, sampling: Sampling, *, named: bool) -> _Alternative:
    assert sampling.seed is not None
    stream = loaded.engine.generate(prepared.ids, sampling)
    writer = Writer(loaded.tokenizer, prepared.stops, after=prepared.after, named=named)
    return _Alternative(sampling.seed, stream, writer)


def _completion(
    loaded: LoadedModel,
    prepared: _Prepared,
    alternatives: Sequence[_Alternative],
    pending: Sequence[Sampling],
    started: float,
) -> Completion:
    to_come = (Continuation("", (), (), None, sampling.seed or 0) for sampling in pending)
    continuations = (*(one.continuation() for one in alternatives), *to_come)
    return Completion(
        model=loaded.entry.name,
        prompt=prepared.text,
        prompt_ids=prepared.ids,
        trimmed_tokens=prepared.trimmed_tokens,
        context_tokens=loaded.engine.context_tokens,
        continuations=continuations,
        speed=_speed([one.writer for one in alternatives if one.writer.ids], started),
        finished=all(one.finish is not None for one in continuations),
    )


def _speed(writers: Sequence[Writer], started: float) -> Speed | None:
    if not writers:
        return None
    first = min(writer.first_time for writer in writers)
    elapsed = max(writer.last_time for writer in writers) - first
    tokens = sum(len(writer.ids) - 1 for writer in writers)
    return Speed(first - started, tokens / elapsed if elapsed > 0 else 0.0)


def _prepare(loaded: LoadedModel, request: CompletionRequest, sampling: Sampling) -> _Prepared:
    """The prompt's ids, with its beginning cut away where it is too long and may be.

    A trimmed prompt leaves room for the continuation, but for a quarter of the context at most.
    """
    tokenizer, context_tokens = loaded.tokenizer, loaded.engine.context_tokens
    longest = context_tokens - (min(sampling.max_new_tokens, context_tokens // 4) if request.trim else 1)
    if request.as_chat:
        prepared = _as_chat(tokenizer, request, longest)
    elif turns := request.turns:
        prompt = prompts.render(tokenizer, turns)
        prepared = _Prepared(prompt.text, prompt.ids, (), (*request.stops, *prompt.stops))
    else:
        prepared = _raw(tokenizer, request, longest)
    if len(prepared.ids) > longest:
        raise PromptTooLong(len(prepared.ids), longest)
    return prepared


def _raw(tokenizer: Tokenizer, request: CompletionRequest, longest: int) -> _Prepared:
    if isinstance(request.prompt, str):
        ids, text = tuple(tokenizer.encode_text(request.prompt)), request.prompt
    else:
        given = tuple(number for number in request.prompt if isinstance(number, int))
        check_ids(tokenizer, given)
        ids = given or tuple(tokenizer.encode_text(""))
        text = PieceStream(tokenizer).add(ids)
    trimmed = len(ids) - longest
    if trimmed <= 0 or not request.trim:
        return _Prepared(text, ids, ids, request.stops)
    head = ids[:1] if ids[0] == tokenizer.bos_id else ()
    ids = (*head, *ids[trimmed + len(head) :])
    return _Prepared(PieceStream(tokenizer).add(ids), ids, ids, request.stops, trimmed)


def _as_chat(tokenizer: Tokenizer, request: CompletionRequest, longest: int) -> _Prepared:
    """The text as a user's message. What is cut from it is cut from the message, never from the template."""
    assert isinstance(request.prompt, str)
    prompt = prompts.render(tokenizer, [Turn("user", request.prompt)])
    whole = left = tokenizer.encode(request.prompt)
    while request.trim and left and len(prompt.ids) > longest:
        left = left[len(prompt.ids) - longest :]
        prompt = prompts.render(tokenizer, [Turn("user", PieceStream(tokenizer).add(left))])
    return _Prepared(prompt.text, prompt.ids, (), (*request.stops, *prompt.stops), len(whole) - len(left))


def check_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """Raises `InvalidParameter` for an id that the model does not have."""
    for number in ids:
        if number >= tokenizer.vocabulary_size:
            raise InvalidParameter("prompt", number, Reason("expected.model_ids", last=tokenizer.vocabulary_size - 1))

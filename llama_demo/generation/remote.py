"""Replies and continuations that another server writes: its pieces of text as they come, in updates like our own.

Of tokens it knows what that server tells: their number, and their text and probabilities where they were asked for.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from llama_demo import prompts
from llama_demo.engines.remote import RemoteServer, TextStream
from llama_demo.engines.remote_messages import Ask, Piece, messages
from llama_demo.generation.chat import ChatRequest
from llama_demo.leasing import SLOWEST_UPDATE_SECONDS, Stopper
from llama_demo.values import (
    SEED_LIMIT,
    Completion,
    CompletionRequest,
    Continuation,
    FinishReason,
    Reply,
    Sampling,
    ScoredToken,
    Speed,
    Turn,
)

_TURN_BYTES = 32
"""What a template puts around a turn is shorter."""


class _Text:
    """What has come of one answer. Its tokens are counted as the server counts them, and until then by its pieces."""

    def __init__(self, stream: TextStream, begins_with: str = "") -> None:
        self.stream = stream
        self.text = begins_with
        self.tokens: list[ScoredToken] = []
        self.prompt_tokens = self.new_tokens = 0
        self.first_time = self.last_time = 0.0
        self.finish: FinishReason | None = None

    async def read(self, update_seconds: Callable[[], float]) -> None:
        """Takes what has come. Raises what the stream failed with."""
        seconds = update_seconds() if self.new_tokens else SLOWEST_UPDATE_SECONDS
        for piece in await self.stream.read(seconds, gather=self.new_tokens > 0):
            self._add(piece)
        if self.stream.drained:
            self.finish = self.stream.finish_reason

    def _add(self, piece: Piece) -> None:
        if piece.text or piece.tokens:
            self.last_time = time.monotonic()
            self.first_time = self.first_time or self.last_time
            self.text += piece.text
            self.tokens += piece.tokens
            self.new_tokens += len(piece.tokens) or 1
        if piece.new_tokens is not None:
            self.prompt_tokens, self.new_tokens = piece.prompt_tokens or 0, piece.new_tokens


@dataclass(frozen=True, slots=True)
class _Fitted:
    turns: tuple[Turn, ...]
    sampling: Sampling
    dropped_turns: int = 0


async def answer(
    server: RemoteServer, request: ChatRequest, stopper: Stopper, update_seconds: Callable[[], float]
) -> AsyncGenerator[Reply, None]:
    """As `chat.answer`. The prompt is what that server's template makes of the messages, shown in its place."""
    prompts.refuse_usual_markers(request.turns)
    started = time.monotonic()
    seed = random.randrange(SEED_LIMIT) if request.sampling.seed is None else request.sampling.seed
    fitted = await asyncio.to_thread(_fit, server, request.turns, replace(request.sampling, seed=seed))
    sent = json.dumps(messages(fitted.turns), ensure_ascii=False, indent=1)
    text = _Text(
        server.ask(Ask(fitted.turns, fitted.sampling, continue_last=request.continue_last)),
        request.turns[-1].content if request.continue_last else "",
    )
    stopper.attach(text.stream)
    try:
        while text.finish is None:
            await text.read(update_seconds)
            yield Reply(
                text=text.text,
                model=server.entry.name,
                prompt_tokens=text.prompt_tokens,
                new_tokens=text.new_tokens,
                context_tokens=_context_tokens(server),
                dropped_turns=fitted.dropped_turns,
                finish=text.finish,
                speed=_speed([text], started),
                seed=seed,
                prompt=sent,
            )
    finally:
        text.stream.cancel()


async def complete(
    server: RemoteServer,
    request: CompletionRequest,
    sampling: Sampling,
    stopper: Stopper,
    update_seconds: Callable[[], float],
) -> AsyncGenerator[Completion, None]:
    """As `completion.complete`. Each alternative is a request of its own, so that each has its seed."""
    started = time.monotonic()
    first = random.randrange(SEED_LIMIT) if sampling.seed is None else sampling.seed
    asks = [
        Ask(
            _source(request),
            replace(sampling, seed=(first + index) % SEED_LIMIT),
            request.stops,
            top=request.top,
            echo=request.echo,
        )
        for index in range(request.n)
    ]
    texts: list[_Text] = []
    try:
        for ask in asks:
            texts.append(_Text(server.ask(ask)))
            stopper.attach(texts[-1].stream)
        while any(text.finish is None for text in texts):
            opened = [text.read(update_seconds) for text in texts if text.finish is None]
            # All are heard before one's failure is told: none of the reads is left behind.
            for heard in await asyncio.gather(*opened, return_exceptions=True):
                if isinstance(heard, BaseException):
                    raise heard
            yield _completion(server, request, asks, texts, started)
    finally:
        for text in texts:
            text.stream.cancel()


def _source(request: CompletionRequest) -> tuple[Turn, ...] | tuple[int, ...] | str:
    """Raises `ForgedTurn`."""
    turns = (Turn("user", str(request.prompt)),) if request.as_chat else request.turns
    prompts.refuse_usual_markers(turns)
    return turns or request.prompt


def _fit(server: RemoteServer, turns: tuple[Turn, ...], sampling: Sampling) -> _Fitted:
    """As many turns as fit, where the server can count them; it is asked only about what may be too long. Blocks.

    Raises `PromptTooLong`, `RemoteUnavailable`."""
    found = server.found
    most = sum(len(turn.content.encode()) + _TURN_BYTES for turn in turns) + sampling.max_new_tokens
    if found is None or not found.counts_tokens or most <= found.context_tokens:
        return _Fitted(turns, sampling)
    context_tokens = found.context_tokens
    reserved = min(sampling.max_new_tokens, context_tokens // 4)
    kept, dropped = prompts.fit(turns, context_tokens - reserved, server.count)
    room = context_tokens - server.count(kept)
    return _Fitted(kept, replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room)), dropped)


def _context_tokens(server: RemoteServer) -> int:
    return server.found.context_tokens if server.found is not None else server.entry.context_tokens


def _completion(
    server: RemoteServer, request: CompletionRequest, asks: Sequence[Ask], texts: Sequence[_Text], started: float
) -> Completion:
    continuations = tuple(
        Continuation(
            text=text.text,
            ids=(),
            logprobs=tuple(token.logprob for token in text.tokens if token.logprob is not None),
            finish=text.finish,
            seed=ask.sampling.seed or 0,
            tokens=tuple(text.tokens),
            counted=text.new_tokens,
        )
        for ask, text in zip(asks, texts, strict=True)
    )
    return Completion(
        model=server.entry.name,
        prompt=request.prompt if isinstance(request.prompt, str) and not request.echo else "",
        prompt_ids=(),
        trimmed_tokens=0,
        context_tokens=_context_tokens(server),
        continuations=continuations,
        speed=_speed([text for text in texts if text.first_time], started),
        finished=all(text.finish is not None for text in texts),
        counted=max(text.prompt_tokens for text in texts),
    )


def _speed(texts: Sequence[_Text], started: float) -> Speed | None:
    if not any(text.first_time for text in texts):
        return None
    first = min(text.first_time for text in texts)
    elapsed = max(text.last_time for text in texts) - first
    tokens = sum(max(0, text.new_tokens - 1) for text in texts)
    return Speed(first - started, tokens / elapsed if elapsed > 0 else 0.0)

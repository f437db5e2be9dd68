"""From what a request asks to its answers, for both endpoints: prompts side by side, and scored where that was asked.

It knows no HTTP: only what generation gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from llama_demo.generation import Stopper
from llama_demo.generation.scoring import Source
from llama_demo.values import Completion, CompletionRequest, Continuation, ScoredText, ScoredToken
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

SIDE_BY_SIDE = 16
"""So many prompts of one request are in the line, or answered, at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt, and what is wanted of it.

    `top` is the number of alternatives a token, None for no log-probabilities at all. With `echo` the prompt is part of
    the text; with `only_prompt` it is all of it. `by_server` for a model that another server runs.
    """

    request: CompletionRequest
    top: int | None = None
    echo: bool = False
    only_prompt: bool = False
    by_server: bool = False

    @property
    def scored(self) -> bool:
        """The engines here give the drawn token's probability alone as they go: all else is read once more at the end.
        Another server gives what it gives as it goes."""
        wanted = self.only_prompt or (self.top is not None and (self.top > 0 or self.echo))
        return wanted and not self.by_server

    def of_server(self) -> Ask:
        """The same for a model that another server runs."""
        request = replace(self.request, top=self.top, echo=self.echo or self.only_prompt)
        return replace(self, request=request, by_server=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """One alternative. `tokens` are those of the text, an end token last, where they were asked for."""

    text: str
    continuation: Continuation
    tokens: tuple[ScoredToken, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that came of one prompt, so far or (`finished`) in whole."""

    prompt: str
    prompt_tokens: int
    new_tokens: int
    answers: tuple[Answer, ...]
    finished: bool


async def answer(runtime: Runtime, ask: Ask, model: str, visitor: Visitor) -> AsyncGenerator[Answers | None, None]:
    """The answers to one prompt, as they grow; None while there is nothing to show. Raises as `Generation` does."""
    if runtime.catalog.find(model).format == "remote":
        ask = ask.of_server()
    if ask.only_prompt and not ask.by_server:
        prompt = ask.request.prompt
        assert not ask.request.turns
        async with aclosing(_score(runtime, prompt, model, ask.top or 0, visitor)) as steps:
            async for scored in steps:
                yield None if scored is None else _prompt_alone(scored)
        return
    made: Completion | None = None
    async with aclosing(runtime.generation.complete(ask.request, model=model, stopper=Stopper(visitor))) as updates:
        async for update in updates:
            made = update if isinstance(update, Completion) else None
            yield None if made is None or (made.finished and ask.scored) else _answers(made, ask)
    if made is not None and ask.scored:
        answers = _answers(made, ask)
        for index, one in enumerate(made.continuations):
            ids = (*made.prompt_ids, *(token.id for token in one.tokens))[: made.context_tokens]
            async with aclosing(_score(runtime, ids, model, ask.top or 0, visitor)) as steps:
                async for scored in steps:
                    if scored is not None:
                        answers = _with_scores(answers, index, scored, ask)
                    yield None
        yield replace(answers, finished=True)


async def merged(
    sources: Sequence[AsyncGenerator[T, None]], side_by_side: int = SIDE_BY_SIDE
) -> AsyncGenerator[tuple[int, T], None]:
    """What `sources` give, each with its number, as it comes. Closing it, or an error of one, ends all of them."""
    queue: asyncio.Queue[tuple[int, T | None, Exception | None]] = asyncio.Queue(maxsize=1)
    turns = asyncio.Semaphore(side_by_side)

    async def run(number: int, source: AsyncGenerator[T, None]) -> None:
        error: Exception | None = None
        try:
            async with turns, aclosing(source) as items:
                async for item in items:
                    await queue.put((number, item, None))
        except Exception as raised:
            error = raised
        await queue.put((-1, None, error))

    tasks = [asyncio.create_task(run(number, source)) for number, source in enumerate(sources)]
    try:
        opened = len(tasks)
        while opened:
            number, item, error = await queue.get()
            if error is not None:
                raise error
            if number < 0:
                opened -= 1
            else:
                yield number, item  # type: ignore[misc]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _score(
    runtime: Runtime, source: Source, model: str, top_k: int, visitor: Visitor
) -> AsyncGenerator[ScoredText | None, None]:
    async with aclosing(
        runtime.generation.score(source, model=model, top_k=top_k, stopper=Stopper(visitor))
    ) as updates:
        async for update in updates:
            yield update if isinstance(update, ScoredText) else None


def _answers(made: Completion, ask: Ask) -> Answers:
    if ask.only_prompt:
        return _echo_alone(made)
    before = made.prompt if ask.echo else ""
    return Answers(
        prompt=before,
        prompt_tokens=made.prompt_tokens,
        new_tokens=made.new_tokens,
        answers=tuple(Answer(before + one.text, one, visible(one)) for one in made.continuations),
        finished=made.finished and not ask.scored,
    )


def _echo_alone(made: Completion) -> Answers:
    """Another server writes one token at least, which nobody has asked for."""
    one = made.continuations[0]
    tokens = one.tokens[: made.prompt_tokens]
    text = "".join(token.text for token in tokens) if tokens else one.text
    nothing = replace(one, text="", finish="length" if made.finished else None)
    return Answers("", made.prompt_tokens, 0, (Answer(text, nothing, tokens),), finished=made.finished)


def _prompt_alone(scored: ScoredText) -> Answers:
    text = "".join(token.text for token in scored.tokens)
    nothing = Continuation("", (), (), "length", 0)
    return Answers(text, len(scored.tokens), 0, (Answer(text, nothing, scored.tokens),), finished=True)


def _with_scores(answers: Answers, index: int, scored: ScoredText, ask: Ask) -> Answers:
    """`answers` with the tokens of one of them as they were read once more, those of the prompt too where it is echoed.

    The pieces of the new tokens are kept: in the middle of the text they are the same, and at its end they may be cut.
    """
    one = answers.answers[index]
    read = scored.tokens[answers.prompt_tokens :][: len(one.tokens)]
    tokens = tuple(replace(now, text=was.text) for now, was in zip(read, one.tokens, strict=False))
    if ask.echo:
        tokens = scored.tokens[: answers.prompt_tokens] + tokens
    changed = replace(one, tokens=tokens)
    return replace(answers, answers=(*answers.answers[:index], changed, *answers.answers[index + 1 :]))


def visible(one: Continuation) -> tuple[ScoredToken, ...]:
    """The tokens that the text has: not those of a stop string, nor those whose text is still held back."""
    stopped = one.finish == "stop" and len(one.tokens) == len(one.ids)
    ended = one.finish is not None and not stopped
    length = 0
    for count, token in enumerate(one.tokens):
        beyond = length >= len(one.text) if stopped else length + len(token.text) > len(one.text)
        if beyond and not ended:
            return one.tokens[:count]
        length += len(token.text)
    return one.tokens

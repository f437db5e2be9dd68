"""Turns what the text tab asks into continuations and scores that stream, and those into what the page shows.

It sees plain values and the runtime, never a component, a tokenizer or a model.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.leasing import Stopper
from llama_demo.messages import Messages
from llama_demo.observe import LOG
from llama_demo.reasons import Reason
from llama_demo.ui.asked import (
    Stoppers,
    View,
    figures,
    loading_words,
    read_identity,
    read_model,
    read_object,
    read_sampling,
    waiting_words,
)
from llama_demo.values import (
    Completion,
    CompletionRequest,
    Continuation,
    LoadProgress,
    ScoredText,
    Waiting,
    turns_from,
)

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

TOP_K = 8
"""Alternatives that the token view shows of each token."""
MAX_SIDES = 2


class Completions:
    """The text tab's handlers, and the stop switches of what is in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    async def answer(self, request: Any, asked: gr.Request | None = None) -> AsyncGenerator[View, None]:
        """The views of one request; the last one has `done`. An error is a view too: one sentence, no traceback."""
        identity, language = read_identity(request)
        words = self._runtime.messages(language)
        view = _view(identity)
        with self.stoppers.opened(identity, self._runtime.visitors.of(asked)) as stopper:
            try:
                given = request if isinstance(request, Mapping) else {}
                views = (
                    self._score(given, identity, words, stopper)
                    if given.get("kind") == "score"
                    else self._complete(given, identity, words, stopper)
                )
                async with aclosing(views):
                    async for view in views:
                        yield view
                if not view["done"]:
                    yield {**view, "note": "", "done": True}
            except Exception as error:
                if not isinstance(error, LlamaDemoError):
                    LOG.exception("the text tab's request failed")
                yield {**view, "note": "", "error": words.error(error), "done": True}

    async def _complete(
        self, request: Mapping[str, Any], identity: str, words: Messages, stopper: Stopper
    ) -> AsyncGenerator[View, None]:
        """All sides together, whichever of them moves; one that fails is no reason for the others to end."""
        asked = [read_side(side, self._runtime.default_model) for side in _sides(request)]
        sides: list[View] = [_side() for _ in asked]
        moved = asyncio.Event()

        async def follow(index: int, model: str, wanted: CompletionRequest) -> None:
            try:
                updates = self._runtime.generation.complete(wanted, model=model, stopper=stopper)
                async with aclosing(updates):
                    async for update in updates:
                        sides[index] = self._side_view(update, words)
                        moved.set()
            except Exception as error:
                if not isinstance(error, LlamaDemoError):
                    LOG.exception("a continuation failed")
                sides[index] = {**sides[index], "error": words.error(error)}
            sides[index] = {**sides[index], "note": "", "done": True}
            moved.set()

        tasks = [asyncio.create_task(follow(index, *side)) for index, side in enumerate(asked)]
        try:
            done = False
            while not done:
                await moved.wait()
                moved.clear()
                done = all(side["done"] for side in sides)
                yield _view(identity, sides=list(sides), done=done)
        finally:
            stopper.stop()
            for task in tasks:
                task.cancel()

    async def _score(
        self, request: Mapping[str, Any], identity: str, words: Messages, stopper: Stopper
    ) -> AsyncGenerator[View, None]:
        source = request.get("source")
        if request.get("turns") is not None:
            source = turns_from(request["turns"], None, request.get("system_prompt") or "")
        scores = self._runtime.generation.score(
            source,  # type: ignore[arg-type]  # anything may have been sent: the generation checks it
            model=read_model(request, self._runtime.default_model),
            top_k=TOP_K,
            stopper=stopper,
        )
        async with aclosing(scores):
            async for update in scores:
                if isinstance(update, ScoredText):
                    yield _view(identity, scores=json.dumps(score_columns(update)), done=True)
                else:
                    yield _view(identity, note=_progress(update, words, "text.scoring"))

    def _side_view(self, update: LoadProgress | Waiting | Completion, words: Messages) -> View:
        if not isinstance(update, Completion):
            return _side(note=_progress(update, words, "text.reading"))
        parts = [_part(one, finished=update.finished) for one in update.continuations]
        started = update.new_tokens > 0
        return _side(
            note="" if started else words("text.reading"),
            parts=parts,
            model=update.model,
            title=self._runtime.catalog.title_of(update.model),
            trimmed=update.trimmed_tokens,
            figures=figures(update.speed, update.new_tokens),
            seed=update.continuations[0].seed if update.finished else None,
            finish=_ending(update) if update.finished else "",
            prompt=update.prompt,
            prompt_ids=list(update.prompt_ids) if update.finished and update.counted is None else None,
        )


def read_side(side: Any, default_model: str) -> tuple[str, CompletionRequest]:
    """The model and the request of one side. Raises `InvalidInput`: whoever writes to the port can send anything."""
    side = read_object(side)
    wanted = CompletionRequest(
        side.get("prompt"),  # it is checked where it is made
        read_sampling(side),
        side.get("stops", ()),
        side.get("n", 1),
        as_chat=side.get("as_chat") is True,
        trim=side.get("trim") is True,
    )
    return read_model(side, default_model), wanted


def _sides(request: Mapping[str, Any]) -> Sequence[Any]:
    sides = request.get("sides")
    if not isinstance(sides, list) or not 1 <= len(sides) <= MAX_SIDES:
        raise InvalidParameter("sides", type(sides).__name__, Reason("expected.requests", most=MAX_SIDES))
    return sides


def _progress(update: LoadProgress | Waiting, words: Messages, working: str) -> str:
    if isinstance(update, LoadProgress):
        return loading_words(update, words)
    return words(working) if update.place == 0 else waiting_words(update, words)


def _view(identity: str, **data: Any) -> View:
    return {"id": identity, "note": "", "error": "", "done": False, **data}


def _side(**data: Any) -> View:
    return {"note": "", "error": "", "done": False, "parts": [], "figures": None, **data}


def _part(one: Continuation, *, finished: bool) -> View:
    probability = math.exp(math.fsum(one.logprobs) / len(one.logprobs)) if one.logprobs else None
    part: View = {"text": one.text, "finish": one.finish, "seed": one.seed, "count": one.new_tokens}
    part["probability"] = probability
    return {**part, "ids": list(one.ids)} if finished else part


def _ending(made: Completion) -> str:
    """How it ended where that needs saying: what all have in common, or that the only one ended by itself."""
    endings = {one.finish for one in made.continuations}
    if len(endings) > 1 or (endings == {"stop"} and len(made.continuations) > 1):
        return ""
    return endings.pop() or ""


def score_columns(scored: ScoredText) -> dict[str, Any]:
    """A scored text as columns, its token names once each: a fifth of the size of one object a token."""
    tokens = scored.tokens
    names = {token.id: token.token for token in tokens}
    names.update({other.id: other.token for token in tokens for other in token.top})
    return {
        "model": scored.model,
        "perplexity": scored.perplexity,
        "names": names,
        "ids": [token.id for token in tokens],
        "texts": [token.text for token in tokens],
        "logprobs": [_rounded(token.logprob) for token in tokens],
        "ranks": [token.rank for token in tokens],
        "entropies": [_rounded(token.entropy) for token in tokens],
        "top_ids": [[other.id for other in token.top] for token in tokens],
        "top_logprobs": [[_rounded(other.logprob) for other in token.top] for token in tokens],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)

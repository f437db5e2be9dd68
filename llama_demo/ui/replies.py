"""Turns what the page asks into a reply that streams, and what came back into what the page shows.

It sees plain values and the runtime, never a component, a tokenizer or a model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import EmptyMessage, LlamaDemoError
from llama_demo.messages import Messages
from llama_demo.observe import LOG
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
from llama_demo.values import ChatUpdate, LoadProgress, Reply, Sampling, Turn, Waiting, turns_from

if TYPE_CHECKING:
    from llama_demo.catalog import Entry
    from llama_demo.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Question:
    """What the page asked for, checked."""

    id: str
    turns: tuple[Turn, ...]
    model: str
    sampling: Sampling
    continue_last: bool


class Replies:
    """The chat tab's two handlers, and the stop switches of the replies in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    async def reply(self, request: Any, asked: gr.Request | None = None) -> AsyncGenerator[View, None]:
        """The views of one reply; the last one has `done`. An error is a view too: one sentence, no traceback."""
        identity, language = read_identity(request)
        words = self._runtime.messages(language)
        with self.stoppers.opened(identity, self._runtime.visitors.of(asked)) as stopper:
            try:
                question = read_question(request, self._runtime.default_model)
                updates = self._runtime.generation.chat(
                    question.turns,
                    model=question.model,
                    sampling=question.sampling,
                    continue_last=question.continue_last,
                    stopper=stopper,
                )
                last: ChatUpdate | None = None
                view = _view(identity)
                async with aclosing(updates):
                    async for update in updates:
                        if update is not last:
                            last, view = update, self._show(identity, update, words)
                        yield view
                if not view["done"]:
                    yield {**view, "note": "", "finish": "cancelled", "done": True}
            except Exception as error:
                if not isinstance(error, LlamaDemoError):
                    LOG.exception("the page's reply failed")
                yield _view(identity, error=words.error(error), done=True)

    def _show(self, identity: str, update: ChatUpdate, words: Messages) -> View:
        if isinstance(update, Waiting):
            return _view(identity, note=waiting_words(update, words))
        if isinstance(update, LoadProgress):
            return _view(identity, note=loading_words(update, words))
        entry = next(entry for entry in self._runtime.catalog.entries if entry.name == update.model)
        return _reply_view(identity, update, entry, words)


def read_question(request: Any, default_model: str) -> Question:
    """Reads what the page sent. Raises `InvalidInput`: whoever writes to the port can send anything."""
    request = read_object(request)
    sampling, model = read_sampling(request), read_model(request, default_model)
    identity, _ = read_identity(request)
    turns = turns_from(request.get("turns"), None, request.get("system_prompt") or "")
    if turns and turns[-1].role == "user" and not turns[-1].content.strip():
        raise EmptyMessage()
    return Question(
        id=identity,
        turns=turns,
        model=model,
        sampling=sampling,
        continue_last=request.get("continue_last") is True,
    )


def _view(identity: str, **data: Any) -> View:
    return {"id": identity, "text": None, "note": "", "error": "", "finish": "", "done": False, **data}


def _reply_view(identity: str, reply: Reply, entry: Entry, words: Messages) -> View:
    view = _view(
        identity,
        text=reply.text,
        note="" if reply.text else words("chat.reading"),
        title=entry.title,
        used=reply.prompt_tokens + reply.new_tokens,
        room=reply.context_tokens,
        dropped=reply.dropped_turns,
    )
    if reply.finish is None:
        return view
    return {
        **view,
        "note": "",
        "finish": reply.finish,
        "done": True,
        "figures": {**figures(reply.speed, reply.new_tokens), "read": reply.prompt_tokens},
        "remote": entry.format == "remote",
        "prompt": reply.prompt,
        "seed": reply.seed,
        "repo": entry.repo,
        "revision": entry.revision,
    }

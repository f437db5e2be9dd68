"""Putting a kept classifier on the Hugging Face Hub from the page: the owner's alone, the head alone by default.

Plain values in and HTML out; no component, no model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llama_demo.classify.results import Pushed
from llama_demo.leasing import Stopper
from llama_demo.messages import Messages
from llama_demo.ui.asked import Stoppers, read_identity
from llama_demo.ui.classify_html import failure, note
from llama_demo.ui.classify_use import ended_early, progress_view, worded_failure, worded_views
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

FIELDS = ("name", "repo", "private", "with_backbone", "confirmed")
"""What the page's controls hold, in this order."""


class ClassifyPush:
    """The handlers, and the stop switches of what is in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    def warning(self, asked: Any, name: Any, visitor: Visitor, *, with_backbone: bool) -> tuple[str, bool]:
        """Why the classifier cannot go there, or what the licence of its model asks of whoever passes that on; and
        whether the licence must be confirmed."""
        words = self._runtime.messages(read_identity(asked)[1])
        try:
            visitor.check_owner()
            licence = self._runtime.classification.sharing.to_confirm(name, visitor)
        except Exception as error:
            return worded_failure(error, words), False
        if licence is None or not with_backbone:
            return "", False
        return failure(words("classify.push_licence", licence=licence.text or words("card.licence_unknown"))), True

    def push(self, asked: Any, given: Mapping[str, Any], visitor: Visitor) -> AsyncGenerator[str, None]:
        """How far it is, then where it is. An error is a view too: one sentence, no traceback."""
        words = self._runtime.messages(read_identity(asked)[1])
        return worded_views(
            lambda stopper: self._views(given, visitor, words, stopper), self.stoppers, asked, visitor, words
        )

    async def _views(
        self, given: Mapping[str, Any], visitor: Visitor, words: Messages, stopper: Stopper
    ) -> AsyncGenerator[str, None]:
        visitor.check_owner()
        updates = self._runtime.classification.sharing.push(
            given["name"],
            str(given["repo"] or "").strip(),
            words,
            private=given["private"] is not False,
            with_backbone=given["with_backbone"] is True,
            licence_confirmed=given["confirmed"] is True,
            stopper=stopper,
        )
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Pushed):
                    yield note(words("cli.pushed", address=update.address))
                    return
                yield progress_view(update, words)
        yield ended_early(stopper, words)

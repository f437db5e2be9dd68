"""The classifiers that are kept: what each is, and taking one away, bringing one back, publishing and deleting it.

Plain values in and HTML out; no component, no model.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from llama_demo.classify.results import Exported
from llama_demo.errors import InvalidParameter
from llama_demo.reasons import Reason
from llama_demo.ui.asked import Stoppers, read_identity
from llama_demo.ui.classify_html import note
from llama_demo.ui.classify_report import report_html
from llama_demo.ui.classify_use import ended_early, progress_view, worded_failure
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.messages import Messages
    from llama_demo.runtime import Runtime


class ClassifyKept:
    """The handlers, and the stop switches of what is in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    def names(self, visitor: Visitor) -> list[str]:
        """Those that `visitor` may use."""
        return self._runtime.classification.heads.names(visitor)

    def describe(self, asked: Any, name: Any, visitor: Visitor) -> tuple[str, str | None]:
        """What the classifier is and how good, and a copy of its file that the page may fetch."""
        words = self._words(asked)
        if not name:
            return "", None
        try:
            heads = self._runtime.classification.heads
            head, file = heads.find(name, visitor), heads.file(name, visitor)
        except Exception as error:
            return worded_failure(error, words), None
        private = not heads.published(head.name) and visitor.is_owner and self._runtime.settings.public
        parts = [
            note(words("classify.kept_model", model=head.backbone.repo or head.backbone.name, count=len(head.labels))),
            note(words("classify.kept_labels", labels=", ".join(head.labels[:20]))),
            note(words("classify.trained_prompt", prompt=head.prompt)),
            note(words("classify.kept_private")) if private else "",
        ]
        try:
            parts += [report_html(head.figures or {}, (), words), note(words("classify.held_out"))]
        except (KeyError, TypeError, ValueError):
            parts.append(note(words("classify.no_report")))
        return "".join(parts), save_file_to_cache(file, get_upload_folder())

    def add(self, asked: Any, file: Any, name: Any, visitor: Visitor) -> tuple[str, str | None]:
        """Keeps an uploaded file; what happened, and the classifier's name."""
        words = self._words(asked)
        try:
            if not isinstance(file, str):
                raise InvalidParameter("file", file, Reason("expected.own_file"))
            path = Path(file)
            kept = self._runtime.classification.heads.add(path, path.name, str(name or "").strip(), visitor)
        except Exception as error:
            return worded_failure(error, words), None
        return note(words("classify.added", name=kept.name)), kept.name

    def remove(self, asked: Any, name: Any, visitor: Visitor) -> str:
        words = self._words(asked)
        try:
            self._runtime.classification.heads.remove(name, visitor)
        except Exception as error:
            return worded_failure(error, words)
        return note(words("classify.removed", name=name))

    def publish(self, asked: Any, name: Any, visitor: Visitor) -> str:
        words = self._words(asked)
        try:
            self._runtime.classification.heads.publish(name, visitor)
        except Exception as error:
            return worded_failure(error, words)
        return note(words("classify.published", name=name))

    async def export(self, asked: Any, name: Any, visitor: Visitor) -> AsyncGenerator[tuple[str, str | None], None]:
        """How far it is, then the archive with the backbone. Only the owner's: a model is many gigabytes."""
        identity, words = read_identity(asked)[0], self._words(asked)
        with self.stoppers.opened(identity, visitor) as stopper:
            try:
                visitor.check_owner()
                target = Path(get_upload_folder(), secrets.token_hex(16), f"{name}.zip")
                updates = self._runtime.classification.sharing.export(str(name), target, words, stopper=stopper)
                async with aclosing(updates):
                    async for update in updates:
                        if isinstance(update, Exported):
                            yield note(words("classify.exported")), str(update.path)
                            return
                        yield progress_view(update, words), None
                yield ended_early(stopper, words), None
            except Exception as error:
                yield worded_failure(error, words), None

    def _words(self, asked: Any) -> Messages:
        return self._runtime.messages(read_identity(asked)[1])

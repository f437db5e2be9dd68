"""Labelled examples as the page gives them, what is in them, and the training of a head on them.

Plain values in and HTML out; no component, no model.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.classify.examples import examples_from
from llama_demo.classify.labelled import Labelled, read_file, read_pasted
from llama_demo.classify.results import Trained
from llama_demo.errors import InvalidParameter
from llama_demo.messages import Messages, shortened
from llama_demo.reasons import Reason
from llama_demo.ui.asked import Stoppers, read_identity, read_model
from llama_demo.ui.classify_html import bars, escaped, note, table
from llama_demo.ui.classify_report import report_html
from llama_demo.ui.classify_use import ended_early, progress_view, worded_failure, worded_views
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.leasing import Stopper
    from llama_demo.runtime import Runtime

FIELDS = ("pasted", "file", "text_column", "label_column", "name", "prompt", "model")
"""What the page's controls hold, in this order."""
_SAMPLE = "sample_examples.tsv"
_SHOWN_ROWS = 5
_ROW_CHARACTERS = 160


def sample() -> str:
    """Forty labelled lines to try it with."""
    return (resources.files(__package__) / _SAMPLE).read_text(encoding="utf-8")


class ClassifyTrain:
    """The handlers, and the stop switches of what is in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    def preview(self, asked: Any, given: Mapping[str, Any]) -> str:
        """How many examples there are of each label, and a few of them; or what is wrong with them. Blocks."""
        words = self._runtime.messages(read_identity(asked)[1])
        if not given.get("file") and not str(given.get("pasted") or "").strip():
            return ""
        try:
            found = read_examples(given, words)
            shown = self._preview(found, words)
            try:
                examples_from(found.rows, self._runtime.limits)
            except Exception as error:
                return worded_failure(error, words) + shown
            return shown
        except Exception as error:
            return worded_failure(error, words)

    def train(self, asked: Any, given: Mapping[str, Any], visitor: Visitor) -> AsyncGenerator[str, None]:
        """How far it is, then the report. An error is a view too: one sentence, no traceback."""
        words = self._runtime.messages(read_identity(asked)[1])
        return worded_views(lambda stopper: self._views(given, words, stopper), self.stoppers, asked, visitor, words)

    async def _views(self, given: Mapping[str, Any], words: Messages, stopper: Stopper) -> AsyncGenerator[str, None]:
        yield note(words("classify.reading_examples"))
        found = await asyncio.to_thread(read_examples, given, words)
        updates = self._runtime.classification.train(
            found.rows,
            str(given.get("name") or "").strip(),
            model=read_model(given, self._runtime.default_model),
            prompt=given.get("prompt") or "",
            stopper=stopper,
        )
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Trained):
                    yield trained_html(update, words)
                    return
                yield progress_view(update, words)
        yield ended_early(stopper, words)

    @staticmethod
    def _preview(found: Labelled, words: Messages) -> str:
        counts = Counter(str(row["label"]) for row in found.rows)
        most = max(counts.values())
        shares = [(label, count / most, str(count)) for label, count in counts.most_common()]
        columns = words("classify.columns", text=found.text_column, label=found.label_column)
        head = [words("classify.column_text"), words("classify.column_label")]
        rows = [(shortened(str(row["text"]), _ROW_CHARACTERS), str(row["label"])) for row in found.rows[:_SHOWN_ROWS]]
        said = words("classify.found", count=len(found.rows), labels=len(counts))
        return f"{note(f'{said} {columns}')}{bars(shares)}{table(head, rows)}"


def read_examples(given: Mapping[str, Any], words: Messages) -> Labelled:
    """The uploaded file, or else what was pasted. Raises `BadTable`, `InvalidParameter`, `InvalidUnicode`."""
    columns = [str(given.get(name) or "").strip() for name in ("text_column", "label_column")]
    if isinstance(file := given.get("file"), str):
        return read_file(Path(file), "", *columns)
    pasted = given.get("pasted")
    if not isinstance(pasted, str):
        raise InvalidParameter("examples", pasted, Reason("expected.text"))
    return read_pasted(pasted, words("classify.pasted"), *columns)


def trained_html(made: Trained, words: Messages) -> str:
    """That it is there, what it reads texts in, and how good it is."""
    public = made.report.public()
    done = f'<p class="decision">{escaped(words("classify.trained", name=made.name))}</p>'
    notes = note(words("classify.trained_prompt", prompt=made.prompt)) + note(words("classify.held_out"))
    return done + notes + report_html(public, public["most_confidently_wrong"], words)

"""What the page does with visitors' files: looks into one, does a task with its rows, and keeps the result for a while.

A result is kept under what it was made from: the visitor, the file and the task. So the same file sent again goes on
where it ended, and nobody can name another's. It sees plain values, never a component.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.errors import LlamaDemoError
from llama_demo.file_errors import FileInProgress, TooManyFiles
from llama_demo.leasing import Stopper
from llama_demo.messages import Messages, shortened
from llama_demo.observe import LOG
from llama_demo.tables import Table, open_table
from llama_demo.text_files import TextTask, check_file, run_file

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime
    from llama_demo.visitors import Visitor

PUBLIC_ROWS = 2_000
"""In a stranger's file; the owner's may have any number."""
PUBLIC_BYTES = 20_000_000
FILES_AT_ONCE = 8
SHARE = 4
"""One file takes at most this part of the places that requests have."""
_VIEW_SECONDS = 0.3
_PREVIEW_ROWS = 5
_PREVIEW_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Plan:
    """A task, and how many of its rows are worked on at once. `report` says in HTML how good a whole result is, from
    the table, the texts' column and the result; nothing where nobody can say."""

    task: TextTask
    window: int
    report: Callable[[Table, str, Path, Messages], str] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of a file, each cell on one line."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FileView:
    """What the page shows of a file in progress. `result` is what there is to take away so far, with its `preview`;
    `report` is how good the whole is, in HTML."""

    note: str = ""
    error: str = ""
    done: int = 0
    total: int = 0
    running: bool = False
    result: Path | None = None
    preview: Preview | None = None
    report: str = ""


class FileRuns:
    """All files in progress on one page, one a visitor. `folder` is where results are kept, `keep` is told of each."""

    def __init__(self, runtime: Runtime, folder: Path, keep: Callable[[Path], None]) -> None:
        self._runtime = runtime
        self._folder = folder
        self._keep = keep
        self._running: dict[str, tuple[str, Stopper]] = {}

    def look(self, path: str, words: Messages) -> Preview | str:
        """The beginning of an uploaded file, or why it cannot be read."""
        try:
            return _preview(open_table(Path(path), Path(path).name))
        except Exception as error:
            return _worded(error, words)

    async def run(
        self, path: str, column: str, make: Callable[[], Plan], visitor: Visitor, words: Messages
    ) -> AsyncGenerator[FileView, None]:
        """The views of one run, the last of them not `running`. An error is a view too; closing this ends the work, and
        what was made is kept."""
        view = FileView(note=words("files.checking"), running=True)
        try:
            with self._place(visitor, Path(path).name) as stopper:
                yield view
                views = self._views(Path(path), column, make(), visitor, words)
                async with aclosing(views):
                    async for view in views:
                        yield view
                        if stopper.stopped:
                            break
                yield await asyncio.to_thread(_ended, view, words)
        except Exception as error:
            view = await asyncio.to_thread(_ended, view, words)
            yield replace(view, note="", error=_worded(error, words))

    def cancel(self, visitor: Visitor) -> None:
        """Ends the visitor's run, if there is one."""
        if (running := self._running.get(visitor.key)) is not None:
            running[1].stop()

    @contextmanager
    def _place(self, visitor: Visitor, name: str) -> Iterator[Stopper]:
        """Raises `FileInProgress`, `TooManyFiles`."""
        if (running := self._running.get(visitor.key)) is not None:
            raise FileInProgress(running[0])
        if len(self._running) >= FILES_AT_ONCE:
            raise TooManyFiles(FILES_AT_ONCE)
        stopper = Stopper()
        self._running[visitor.key] = name, stopper
        try:
            yield stopper
        finally:
            del self._running[visitor.key]

    async def _views(
        self, path: Path, column: str, plan: Plan, visitor: Visitor, words: Messages
    ) -> AsyncGenerator[FileView, None]:
        table = await asyncio.to_thread(open_table, path, path.name)
        rows, size_bytes = (None, None) if visitor.is_owner else (PUBLIC_ROWS, PUBLIC_BYTES)
        total = await asyncio.to_thread(check_file, table, column, plan.task, rows=rows, size_bytes=size_bytes)
        result = await asyncio.to_thread(self._result, path, column, plan, visitor)
        steps = run_file(
            table, column, result, plan.task, total=total, window=plan.window, worded=words.error, title=result.name
        )
        shown = 0.0
        async with aclosing(steps):
            async for step in steps:
                if step.done == step.total or time.monotonic() - shown >= _VIEW_SECONDS:
                    shown = time.monotonic()
                    note = words("cli.file_progress", done=step.done, total=step.total, failed=step.failed)
                    yield FileView(note, "", step.done, step.total, running=True, result=result)
        if plan.report is not None:
            report = await asyncio.to_thread(plan.report, table, column, result, words)
            yield FileView(done=total, total=total, running=True, result=result, report=report)

    def _result(self, path: Path, column: str, plan: Plan, visitor: Visitor) -> Path:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        made_from = json.dumps([visitor.key, content, path.name, column, dict(plan.task.fixed)])
        folder = self._folder / hashlib.sha256(made_from.encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / f"{path.stem}-results{path.suffix}"
        self._keep(result)
        return result


def _ended(view: FileView, words: Messages) -> FileView:
    """`view` once nothing happens any more: what there is, and how to go on."""
    if view.result is None:
        return FileView()
    whole = view.done == view.total
    note = words("files.done" if whole else "files.stopped", done=view.done, total=view.total)
    if not view.done:
        return FileView(note)
    return replace(view, note=note, running=False, preview=_preview(open_table(view.result)))


def _preview(table: Table) -> Preview:
    rows = tuple(
        tuple(_cell(row.values.get(name)) for name in table.columns) for row in islice(table.rows(), _PREVIEW_ROWS)
    )
    return Preview(table.columns, rows)


def _cell(value: Any) -> str:
    return "" if value is None else shortened(str(value), _PREVIEW_CHARACTERS)


def _worded(error: Exception, words: Messages) -> str:
    if not isinstance(error, LlamaDemoError):
        LOG.exception("a file failed")
    return words.error(error)

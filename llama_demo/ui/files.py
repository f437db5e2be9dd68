"""The Files section of a tab: a file of texts in, progress, cancel, a preview, and the same file with results out.

A tab calls `build_files` with what is to be done with a row; the rest is the same for all of them. `file_runs` does it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from llama_demo.messages import Messages, size
from llama_demo.tables import CSV_NAMES, JSONL_NAMES
from llama_demo.ui.file_runs import PUBLIC_BYTES, PUBLIC_ROWS, FileRuns, FileView, Plan, Preview
from llama_demo.ui.patches import delete_what_was_cut_off
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime
    from llama_demo.visitors import Visitor

KEPT_SECONDS = 86_400
DELETE_CACHE = (3_600, KEPT_SECONDS)
"""How often Gradio looks for uploads and results that are older than this, in seconds."""
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_AT_ONCE: dict[str, Any] = {"queue": False, "concurrency_limit": None, **_PRIVATE}
_WITH_LANGUAGE = "(...values) => [...values.slice(0, -1), window.llamaDemoLanguage]"


def build_runs(runtime: Runtime, page: Any) -> FileRuns:
    """One for all sections of `page`, which deletes results as it does uploads: after a time, and at its end."""
    kept: set[str] = set()
    page.temp_file_sets.append(kept)
    folder = Path(gr.utils.get_upload_folder())
    delete_what_was_cut_off(page, folder, KEPT_SECONDS)
    return FileRuns(runtime, folder / "results", lambda path: kept.add(str(path)))


def build_files(
    runtime: Runtime,
    wording: Wording,
    runs: FileRuns,
    make: Callable[[Sequence[Any], Visitor], Plan],
    inputs: Sequence[Any],
    *,
    own: Sequence[Any] = (),
    prefix: str,
    column: str,
) -> None:
    """Fills a column with the section. `make` turns the values of `inputs` into what is done with each row for a
    visitor, and raises `InvalidInput`; those `own` of the section are rendered in it. `column` is the texts' unless the
    visitor chooses another. `prefix` begins the ids."""
    parts = _components(runtime, wording, own, prefix)

    def look(path: str | None, spoken: str) -> list[Any]:
        words = runtime.messages(spoken)
        found = runs.look(path, words) if path else Preview()
        error = found if isinstance(found, str) else ""
        shown = found if isinstance(found, Preview) else Preview()
        return [
            gr.update(choices=list(shown.columns), value=_likely(shown, column), visible=bool(shown.columns)),
            _table(shown, words),
            _status(FileView(error=error), words),
            gr.update(interactive=bool(shown.columns)),
            gr.update(visible=False, value=None),
            "",
        ]

    async def run(request: gr.Request, *values: Any) -> AsyncGenerator[list[Any], None]:
        path, name, *given, spoken = values
        if not path:
            return
        words = runtime.messages(spoken)
        visitor = runtime.visitors.of(request)
        views = runs.run(path, str(name or ""), lambda: make(given, visitor), visitor, words)
        async with aclosing(views):
            async for view in views:
                yield [
                    _status(view, words),
                    gr.update(interactive=not view.running),
                    gr.update(visible=view.running),
                    gr.update(value=None if view.running else view.result, visible=_ready(view)),
                    gr.skip() if view.preview is None else _table(view.preview, words),
                    view.report,
                ]

    def end(request: gr.Request) -> None:
        runs.cancel(runtime.visitors.of(request))

    looked = [parts.column, parts.preview, parts.status, parts.start, parts.result, parts.report]
    parts.source.change(look, [parts.source, parts.language], looked, js=_WITH_LANGUAGE, **_AT_ONCE)
    parts.start.click(
        run,
        [parts.source, parts.column, *inputs, parts.language],
        [parts.status, parts.start, parts.cancel, parts.result, parts.preview, parts.report],
        js=_WITH_LANGUAGE,
        concurrency_limit=None,
        **_PRIVATE,
    )
    parts.cancel.click(end, None, None, **_AT_ONCE)


class _Parts(NamedTuple):
    """The components of one section."""

    source: Any
    column: Any
    preview: Any
    status: Any
    start: Any
    cancel: Any
    result: Any
    report: Any
    language: Any


def _components(runtime: Runtime, wording: Wording, own: Sequence[Any], prefix: str) -> _Parts:
    wording.make(gr.Markdown, partial(_intro, public=runtime.settings.public), elem_classes="intro")
    kinds = [*CSV_NAMES, *JSONL_NAMES]
    source = wording.make(
        gr.File, {"label": "files.source"}, file_types=kinds, height=150, elem_id=f"{prefix}-file-source"
    )
    column = wording.make(
        gr.Dropdown, {"label": "files.column"}, choices=[], visible=False, elem_id=f"{prefix}-file-column"
    )
    for component in own:
        component.render()
    preview = gr.HTML(visible=False, elem_id=f"{prefix}-file-preview", elem_classes="file-preview", padding=False)
    with gr.Column(elem_classes="file-foot"):
        status = gr.HTML(_status(FileView(), runtime.messages()), elem_id=f"{prefix}-file-status", padding=False)
        with gr.Row(elem_classes="file-actions"):
            start = wording.make(
                gr.Button, {"value": "files.run"}, variant="primary", interactive=False, elem_id=f"{prefix}-file-run"
            )
            cancel = wording.make(gr.Button, {"value": "files.cancel"}, visible=False, elem_id=f"{prefix}-file-cancel")
            result = wording.make(
                gr.DownloadButton, {"label": "files.result"}, visible=False, elem_id=f"{prefix}-file-result"
            )
    report = gr.HTML(
        "", js_on_load=None, apply_default_css=False, elem_id=f"{prefix}-file-report", elem_classes="classify-result"
    )
    return _Parts(source, column, preview, status, start, cancel, result, report, gr.Textbox(visible=False))


def _intro(words: Messages, *, public: bool) -> dict[str, str]:
    kept = words("files.kept", hours=KEPT_SECONDS // 3_600)
    limits = words("files.limits", rows=f"{PUBLIC_ROWS:,}", size=size(PUBLIC_BYTES)) if public else ""
    return {"value": " ".join(filter(None, [words("files.intro"), limits, kept]))}


def _ready(view: FileView) -> bool:
    return not view.running and view.result is not None


def _likely(preview: Preview, column: str) -> str | None:
    """The column that is called as expected, or the only one."""
    if column in preview.columns:
        return column
    return preview.columns[0] if len(preview.columns) == 1 else None


def _table(preview: Preview, words: Messages) -> Any:
    head = "".join(f"<th>{escape(column)}</th>" for column in preview.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in preview.rows)
    caption = escape(words("files.preview"))
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return gr.update(value=table, visible=bool(preview.columns))


def _status(view: FileView, words: Messages) -> str:
    bar = ""
    if view.running:
        value = f'value="{view.done}" max="{view.total}"' if view.total else ""
        bar = f'<progress {value} aria-label="{escape(words("files.progress"))}"></progress>'
    live = "" if view.running else ' role="status"'
    return f'{bar}<p class="note"{live}>{escape(view.note)}</p><p class="error" role="alert">{escape(view.error)}</p>'

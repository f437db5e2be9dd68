"""The second view of the classification tab: a file in and out, by what is chosen in the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.classify_events import AT_ONCE, LANGUAGE, asked, result
from llama_demo.ui.classify_files import ClassifyFiles
from llama_demo.ui.classify_use import FIELDS
from llama_demo.ui.files import build_files
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime
    from llama_demo.ui.classify_use_view import UseView
    from llama_demo.ui.file_runs import FileRuns


class FilesView:
    """What decides is read when a visitor turns to this view: it cannot change while it is shown."""

    def __init__(self, runtime: Runtime, wording: Wording, model: Any, runs: FileRuns) -> None:
        self._files = ClassifyFiles(runtime)
        wording.make(gr.Markdown, {"value": "classify.files_intro"}, elem_classes="classify-intro")
        self._about = result("classify-files-about")
        self._given = gr.JSON(visible=False)
        with gr.Column(elem_classes="files", min_width=0):
            inputs = [self._given, model]
            build_files(runtime, wording, runs, self._files.plan, inputs, prefix="classify", column="text")

    def connect(self, tab: Any, use: UseView) -> None:
        """`tab` is this view's; `use` chooses what decides."""

        def show(request: Any, *values: Any) -> tuple[str, dict[str, Any]]:
            given = dict(zip(FIELDS, values, strict=False))
            return self._files.chosen(request, given), given

        tab.select(
            show,
            js=LANGUAGE,
            inputs=[asked(), *use.controls],
            outputs=[self._about, self._given],
            preprocess=False,
            **AT_ONCE,
        )

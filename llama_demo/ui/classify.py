"""The classification tab: Gradio's own components, joined to handlers that know none of them.

What was written is kept in the visitor's browser (`classify.js`); the server gives verdicts and reports.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.classify_files_view import FilesView
from llama_demo.ui.classify_kept_view import KeptView
from llama_demo.ui.classify_train_view import TrainView
from llama_demo.ui.classify_use_view import UseView
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.messages import Messages
    from llama_demo.runtime import Runtime
    from llama_demo.ui.file_runs import FileRuns

SCRIPTS = ("page.js", "classify.js")
STATE = '<p id="classify-lost" class="error" role="alert"></p>'


def build_classify(runtime: Runtime, wording: Wording, model: Any, runs: FileRuns) -> None:
    """Fills the classification tab. `model` is the header's picker, `runs` are the files in progress on the page."""
    with gr.Column(elem_id="classify", min_width=0):
        with gr.Tabs(elem_id="classify-views", overflow_behavior="wrap"):
            with wording.make(gr.Tab, {"label": "classify.use"}, id="use", elem_id="classify-use"):
                use = UseView(runtime, wording)
            with wording.make(gr.Tab, {"label": "classify.files"}, id="files", elem_id="classify-files") as tab:
                files = FilesView(runtime, wording, model, runs)
            with wording.make(gr.Tab, {"label": "classify.train"}, id="train", elem_id="classify-train"):
                train = TrainView(runtime, wording)
            with wording.make(gr.Tab, {"label": "classify.kept"}, id="kept", elem_id="classify-kept"):
                kept = KeptView(runtime, wording)
        bridge = _bridge(wording)
    use.connect(bridge, model)
    files.connect(tab, use)
    kept.connect(bridge, use)
    train.connect(model, (use, kept))


def _bridge(wording: Wording) -> Any:
    """The tab's own script, and what only it says."""
    folder = resources.files(__package__)

    def start(words: Messages) -> dict[str, Any]:
        return {"value": {"words": {name: words(f"classify.{name}") for name in ("lost", "not_kept")}}}

    return wording.make(
        gr.HTML,
        start,
        html_template=STATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        apply_default_css=False,
        elem_id="classify-state",
    )

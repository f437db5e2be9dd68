"""The text tab: its settings are Gradio's components, the rest is one piece of the page's own (`text.js`).

The text, its branches and the choices live in the visitor's browser; the server streams continuations and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.text_files import completing
from llama_demo.ui.completions import Completions
from llama_demo.ui.file_runs import SHARE, FileRuns, Plan
from llama_demo.ui.files import build_files
from llama_demo.ui.header import model_label
from llama_demo.ui.sampling_controls import sampling_controls
from llama_demo.ui.words import Wording
from llama_demo.values import MAX_ALTERNATIVES, CompletionRequest, Sampling

if TYPE_CHECKING:
    from llama_demo.messages import Messages
    from llama_demo.runtime import Runtime
    from llama_demo.visitors import Visitor

SCRIPTS = (
    "page.js",
    "text_view.js",
    "token_chart.js",
    "token_export.js",
    "token_view.js",
    "text_branches.js",
    "text_compare.js",
    "text_tokens.js",
    "text.js",
)
LENGTH = 128
"""Tokens of a continuation where nothing else is chosen: short enough to read, choose and go on."""
NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
PRESETS: dict[str, dict[str, Any]] = {
    "story": {"temperature": 0.8},
    "list": {"temperature": 0.6, "max_new_tokens": 96},
    "translation": {"temperature": 0.0, "max_new_tokens": 24, "stops": "\\n"},
    "code": {"temperature": 0.2, "stops": "\\ndef\n\\nclass"},
}
"""What each preset chooses beside its text; the words are under `text.preset_`."""
TEMPLATE = """
<div id="text-top" class="tools">
  <div id="text-views" role="tablist">
    <button type="button" role="tab" data-view="text" data-word="view_text"></button>
    <button type="button" role="tab" data-view="tokens" data-word="view_tokens"></button>
    <button type="button" role="tab" data-view="compare" data-word="view_compare"></button>
    <button type="button" role="tab" data-view="files" data-word="view_files"></button>
  </div>
  <button type="button" id="show-text-settings" class="quiet" data-word="settings"></button>
</div>
<div id="text-body">
  <div id="text-scroll">
    <div id="text-intro"><p data-word="intro"></p><div id="text-presets"></div></div>
    <div id="text-paper">
      <div id="text-backdrop" aria-hidden="true"></div>
      <textarea id="text-box" spellcheck="false" autocapitalize="off"></textarea>
    </div>
    <div id="text-cards" class="cards"></div>
  </div>
  <div id="token-view">
    <div id="token-summary"><span id="token-perplexity"></span><span id="token-export"></span></div>
    <canvas id="token-chart" role="img"></canvas>
    <div id="token-legend"></div>
    <div id="tokens" role="group"></div>
    <div id="token-details"></div>
  </div>
  <div id="compare-view" class="cards"></div>
</div>
<div id="text-branches" role="group"></div>
<p id="text-note" role="status"></p>
<p id="text-error" role="alert"></p>
<p id="text-stats"></p>
<div id="text-actions">
  <div id="text-mode" role="radiogroup">
    <label><input type="radio" name="text-mode" value="raw"><span data-word="raw"></span></label>
    <label><input type="radio" name="text-mode" value="chat"><span data-word="as_chat"></span></label>
  </div>
  <button type="button" id="text-undo" class="quiet" data-word="undo"></button>
  <button type="button" id="text-again" class="quiet" data-word="again"></button>
  <button type="button" id="text-go"></button>
  <button type="button" id="text-stop" data-word="stop"></button>
</div>
"""
_HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple"}


def build_text(runtime: Runtime, wording: Wording, model: Any, runs: FileRuns) -> None:
    """Fills the text tab. `model` is the header's picker, `runs` are the files in progress on the page."""
    completions = Completions(runtime)
    with gr.Row(elem_id="text"):
        with gr.Column(elem_id="text-column", min_width=0):
            bridge = _bridge(runtime, wording, completions)
            files = gr.Column(elem_id="text-files", elem_classes="files", min_width=0)
        with gr.Column(elem_id="text-settings", elem_classes="drawer settings", scale=0, min_width=0):
            closer = wording.make(gr.Button, {"value": "chat.close"}, elem_classes="close", size="sm")
            controls = _settings(runtime, wording)
            reset = wording.make(gr.Button, {"value": "chat.reset"}, elem_id="reset-text-settings", size="sm")
    everything = [model, *controls]
    with files:
        mode = wording.make(gr.Radio, _modes, value="raw", render=False, elem_id="text-file-mode")
        plan = partial(file_plan, runtime)
        build_files(runtime, wording, runs, plan, [*everything, mode], own=[mode], prefix="text", column="prompt")
    bridge.run(fn=None, js="(...values) => window.llamaDemoText.start(values)", inputs=everything, **_HIDDEN)
    restoring = bridge.restore(fn=None, js="() => window.llamaDemoText.restored()", outputs=controls, **_HIDDEN)
    restoring.then(fn=None, js="() => window.llamaDemoText.settled()", **_HIDDEN)
    reset.click(fn=None, js="() => window.llamaDemoText.defaults()", outputs=controls, **_HIDDEN)
    closer.click(fn=None, js="() => window.llamaDemoText.closeDrawers()", **_HIDDEN)
    answering = bridge.ask(
        fn=completions.answer,
        js="() => window.llamaDemoText.request()",
        inputs=[gr.JSON(visible=False)],
        outputs=[bridge],
        concurrency_limit=None,
        **_HIDDEN,
    )
    answering.then(fn=None, js="() => window.llamaDemoText.ended()", **_HIDDEN)


def file_plan(runtime: Runtime, values: Sequence[Any], visitor: Visitor) -> Plan:
    """What is done with each row of a visitor's file: the picked model, the settings, how texts reach the model.

    Raises `InvalidParameter`, `InvalidUnicode`.
    """
    model, *numbers, seed, n, stops, trim, mode = values
    sampling = Sampling(**dict(zip(NAMES, numbers, strict=True)), seed=None if seed == "" else seed)
    plain = tuple(stop.replace("\\n", "\n").replace("\\t", "\t") for stop in (stops or "").split("\n") if stop)
    request = CompletionRequest("", sampling, plain, n, as_chat=mode == "chat", trim=trim is True)
    name = model or runtime.default_model
    window = max(1, runtime.settings.concurrent // (SHARE * request.n))
    return Plan(completing(runtime.generation, name, request, visitor), window)


def _modes(words: Messages) -> dict[str, Any]:
    choices = [(words("text.raw"), "raw"), (words("text.as_chat"), "chat")]
    return {"label": words("text.mode"), "choices": choices}


def page_words(words: Messages) -> dict[str, Any]:
    """What the script says, with the places for its numbers as they are: everything under `text.` and `figures.`."""
    return {**words.under("text."), "figures": words.under("figures.")}


def _bridge(runtime: Runtime, wording: Wording, completions: Completions) -> Any:
    """The tab's own piece of the page, where the server's views reach its script."""
    folder = resources.files(__package__)

    async def stop(identity: Any) -> None:
        completions.stoppers.stop(identity)

    def start(words: Messages) -> dict[str, Any]:
        models = [
            {"name": model.name, "label": model_label(model, words), "title": model.title, "fits": model.fits}
            for model in runtime.models()
        ]
        default = default_sampling(runtime)
        value = {
            "words": page_words(words),
            "language": words.language,
            "defaults": {**{name: getattr(default, name) for name in NAMES}, "seed": None},
            "model": runtime.default_model,
            "models": models,
            "presets": PRESETS,
        }
        return {"value": value}

    return wording.make(
        gr.HTML,
        start,
        html_template=TEMPLATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[stop],
        apply_default_css=False,
        elem_id="text-state",
    )


def default_sampling(runtime: Runtime) -> Sampling:
    return runtime.limits.clamp(replace(Sampling(), max_new_tokens=LENGTH))


def _settings(runtime: Runtime, wording: Wording) -> list[Any]:
    """The controls in the order that `text.js` reads them."""
    limit = runtime.limits.max_new_tokens
    return [
        *sampling_controls(wording, NAMES, default_sampling(runtime), limit, prefix="text-"),
        wording.make(
            gr.Slider,
            {"label": "text.n", "info": "text.n_help"},
            minimum=1,
            maximum=MAX_ALTERNATIVES,
            step=1,
            value=1,
            buttons=[],
            elem_id="text-n",
        ),
        wording.make(
            gr.Textbox,
            {"label": "text.stops", "info": "text.stops_help", "placeholder": "text.stops_none"},
            lines=2,
            max_lines=6,
            elem_id="text-stops",
        ),
        wording.make(gr.Checkbox, {"label": "text.trim", "info": "text.trim_help"}, value=False, elem_id="text-trim"),
    ]

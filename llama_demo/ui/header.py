"""The head of the page: its name, the model picker, and what the server is doing now. And its last line."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.messages import DEFAULT_LANGUAGE, Messages, size
from llama_demo.ui.asked import loading_words
from llama_demo.ui.display import build_display
from llama_demo.ui.owner import build_owner, build_rules
from llama_demo.ui.words import Wording
from llama_demo.values import ModelState

if TYPE_CHECKING:
    from llama_demo.listing import ModelSummary
    from llama_demo.runtime import Runtime

RUNNABLE = {"here": 0, "remote": 0, "download": 1}
"""Where what can be chosen stands, and in which order; the rest is listed after it, and leads to the Models tab."""
STATUS = '<span id="status-model"></span><span id="status-memory"></span><span id="status-profile"></span>'


def status(runtime: Runtime, asked: Any) -> dict[str, Any]:
    """The header's texts for the model and the language in `asked`; `moving` while they will soon change."""
    given = asked if isinstance(asked, dict) else {}
    words = runtime.messages(str(given.get("language", DEFAULT_LANGUAGE)))
    models = runtime.models()
    name = given.get("model") or runtime.default_model
    model = next((entry for entry in models if entry.name == name), models[0])
    waiting = runtime.waiting()
    profile = "reproducible" if runtime.settings.reproducible else "fast"
    return {
        "model": model_words(model, words),
        "model_help": words.sentence(model.good_for),
        "state": str(model.state),
        "offered": {each.name: each.where in RUNNABLE for each in models},
        "memory": " · ".join(_memory(runtime, words) + ([words("page.waiting", count=waiting)] if waiting else [])),
        "profile": words(f"page.profile_{profile}"),
        "profile_help": words(f"page.profile_{profile}_help"),
        "moving": model.state in (ModelState.DOWNLOADING, ModelState.LOADING, ModelState.DRAINING) or waiting > 0,
    }


def _memory(runtime: Runtime, words: Messages) -> list[str]:
    return [
        words(
            "page.memory",
            device=memory.device.upper(),
            used=f"{memory.used_bytes / 1e9:.1f}",
            budget=f"{memory.budget_bytes / 1e9:.1f}",
        )
        for memory in runtime.memory()
    ]


def model_words(model: ModelSummary, words: Messages) -> str:
    """The model's state in a few words: the progress of its load, or why it cannot be used."""
    if model.progress is not None and model.state in (ModelState.DOWNLOADING, ModelState.LOADING):
        return loading_words(model.progress, words)
    if model.state is ModelState.FAILED and model.error is not None:
        return words.error(model.error)
    return words(f"models.state_{model.state}")


def model_label(model: ModelSummary, words: Messages) -> str:
    """One line of the picker: the name, its size, and whether it runs here."""
    where = words(f"models.where_{model.where}")
    if model.where == "remote":
        return words("models.label_remote", title=model.title, where=where)
    return words("models.label", title=model.title, size=size(model.bytes), where=where)


def build_header(runtime: Runtime, wording: Wording) -> tuple[Any, Any]:
    """The head of the page; returns the model picker and the choice of a language."""

    def choices(words: Messages) -> dict[str, Any]:
        models = sorted(runtime.models(), key=lambda model: RUNNABLE.get(model.where, len(RUNNABLE)))
        labels = [(model_label(model, words), model.name) for model in models]
        return {"label": words("models.picker"), "choices": labels}

    async def offer(asked: Any) -> Any:
        given = asked if isinstance(asked, dict) else {}
        return gr.update(**choices(runtime.messages(str(given.get("language", DEFAULT_LANGUAGE)))))

    async def read_status(asked: Any) -> dict[str, Any]:
        return status(runtime, asked)

    async def choose(name: Any, request: gr.Request | None = None) -> Any:
        # On a public page a glance at the list moves no model: the first question does.
        may_load = not runtime.settings.public or runtime.visitors.of(request).is_owner
        if isinstance(name, str) and may_load:
            runtime.prepare(name)
        return name

    with gr.Row(elem_id="header"):
        wording.make(gr.HTML, _name, elem_id="page-name", min_width=0)
        picker = wording.make(
            gr.Dropdown,
            choices,
            value=runtime.default_model,
            show_label=False,
            container=False,
            filterable=False,
            elem_id="model-picker",
            min_width=0,
        )
        state = gr.HTML(
            "",
            html_template=STATUS,
            js_on_load=(resources.files(__package__) / "status.js").read_text(encoding="utf-8"),
            server_functions=[read_status],
            elem_id="status",
            min_width=0,
        )
        language = build_display(wording)
    quietly: dict[str, Any] = {"queue": False, "concurrency_limit": None, "api_visibility": "private"}
    quietly["show_progress"] = "hidden"
    picker.input(choose, [picker], [picker], js="(name) => window.llamaDemoHeader.choose(name)", **quietly)
    asked = "() => ({ language: window.llamaDemoLanguage })"
    state.offer(offer, [gr.JSON(visible=False)], [picker], js=asked, **quietly).then(
        fn=None, js="() => window.llamaDemoHeader.chosen()", outputs=[picker], api_visibility="private"
    )
    picker.change(
        fn=None,
        js="(model) => window.dispatchEvent(new CustomEvent('llama-demo:model', {detail: model}))",
        inputs=[picker],
        api_visibility="private",
    )
    return picker, language


def _name(words: Messages) -> dict[str, Any]:
    return {"value": f"<h1>{words('page.name')}</h1>"}


def build_footer(runtime: Runtime, wording: Wording) -> None:
    """What is running here, what the server keeps, and a link to what is on the screen."""
    kept = "page.kept_log" if runtime.settings.log_prompts else "page.kept_nothing"
    with gr.Column(elem_id="about", scale=0):
        wording.make(gr.Markdown, {"value": "page.about"})
        wording.make(gr.Markdown, {"value": kept})
        build_rules(runtime, wording)
        build_owner(runtime, wording)
        link = wording.make(gr.Button, {"value": "page.copy_link"}, size="sm", elem_id="copy-link", min_width=0)
        gr.HTML("", html_template='<span id="link-note" role="status"></span>', js_on_load=None)
    link.click(fn=None, js="() => window.llamaDemo.copyLink()", api_visibility="private", show_progress="hidden")

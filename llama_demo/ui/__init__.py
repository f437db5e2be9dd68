"""The page. `build` makes it and does nothing else; what belongs to launching it is in `launch_options`."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.messages import languages
from llama_demo.ui.chat import build_chat
from llama_demo.ui.classify import build_classify
from llama_demo.ui.classify_endpoints import add_classify_endpoints
from llama_demo.ui.display import speak
from llama_demo.ui.endpoints import add_endpoints
from llama_demo.ui.file_runs import PUBLIC_BYTES
from llama_demo.ui.files import DELETE_CACHE, build_runs
from llama_demo.ui.header import build_footer, build_header
from llama_demo.ui.models import build_models
from llama_demo.ui.patches import forget_visits, look_less_often, patch_gradio
from llama_demo.ui.text import build_text
from llama_demo.ui.theme import theme
from llama_demo.ui.tools import add_tools
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_STYLES = ("page.css", "chat.css", "conversations.css", "text.css", "classify.css", "models.css", "files.css")
_SCRIPTS = ("display.js", "keyboard.js")
"""Those of the whole page; the others belong to what they move."""
_HEAD = '<meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content">'
_SESSIONS = 500
"""Gradio keeps ten thousand visits unless told. Ours needs nothing of past ones: as many as may be in use are kept."""
_SPARE_EVENTS = 64
"""Of Gradio's places for running events, beside those that the runtime's own line can hold."""


def build(runtime: Runtime) -> Any:
    """The whole page as `gr.Blocks`, not launched."""
    patch_gradio()
    words = runtime.messages()
    wording = Wording(runtime.messages)
    with gr.Blocks(
        title=words("page.name"), analytics_enabled=False, fill_width=True, delete_cache=DELETE_CACHE
    ) as page:
        runs = build_runs(runtime, page)
        model, language = build_header(runtime, wording)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with wording.make(gr.Tab, {"label": "chat.tab"}, id="chat", elem_id="chat-tab"):
                build_chat(runtime, wording, model)
            with wording.make(gr.Tab, {"label": "text.tab"}, id="text", elem_id="text-tab"):
                build_text(runtime, wording, model, runs)
            with wording.make(gr.Tab, {"label": "classify.tab"}, id="classify", elem_id="classify-tab"):
                build_classify(runtime, wording, model, runs)
            with wording.make(gr.Tab, {"label": "models.tab"}, id="models", elem_id="models-tab"):
                build_models(runtime, wording)
        build_footer(runtime, wording)
        add_endpoints(runtime)
        add_classify_endpoints(runtime)
        add_tools(runtime)
        if len(languages()) > 1:
            speak(page, wording, language)
    look_less_often(page)
    forget_visits(page)
    return page


def launch_options(runtime: Runtime) -> dict[str, Any]:
    """Arguments for `Blocks.launch`: the look, and what Gradio is not to do on a public link."""
    folder = resources.files(__package__)
    css = "\n".join((folder / name).read_text(encoding="utf-8") for name in _STYLES)
    scripts = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return {
        "theme": theme(),
        # Not as `css`: Gradio would put a prefix before every selector.
        "head": f"{_HEAD}<script>{scripts}</script><style>{css}</style>",
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "pwa": False,
        "auth": None if runtime.users is None else runtime.users.checked,
        "auth_message": runtime.messages()("page.sign_in"),
        "max_file_size": PUBLIC_BYTES if runtime.settings.public else None,
        "state_session_capacity": _SESSIONS,
        "max_threads": runtime.settings.concurrent + runtime.settings.queue + _SPARE_EVENTS,
    }

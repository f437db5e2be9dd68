"""The Models tab: one piece of the page's own (`models.js`) that shows what the server says and asks it to act."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.messages import DEFAULT_LANGUAGE, Messages
from llama_demo.observe import LOG
from llama_demo.ui.asked import View, read_object
from llama_demo.ui.model_cards import models_view
from llama_demo.ui.words import Wording
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

SCRIPTS = ("page.js", "models_view.js", "models.js")
TEMPLATE = """
<div id="models-scroll">
  <p id="models-intro" data-word="intro"></p>
  <p id="models-error" role="alert"></p>
  <div id="models-devices"></div>
  <div id="models-groups"></div>
</div>
"""


class ModelsPage:
    """The tab's handlers. Every one gives the whole view, so that what was done is seen at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        management = runtime.management
        self._actions: dict[str, Callable[[str], None]] = {
            "load": management.load,
            "unload": management.unload,
            "cancel": management.unload,
            "pin": lambda name: management.pin(name, pinned=True),
            "unpin": lambda name: management.pin(name, pinned=False),
        }

    def read(self, asked: Any, visitor: Visitor) -> View:
        """The list as `visitor` may see it, in the language in `asked`."""
        runtime = self._runtime
        words, owner = runtime.messages(_language(asked)), visitor.is_owner
        return models_view(runtime.models(everything=owner), runtime.memory(), words, owner=owner)

    def act(self, asked: Any, visitor: Visitor) -> View:
        """Does what `asked` says, `{do, name}`, and gives the list afterwards; an error is a sentence in it."""
        words = self._runtime.messages(_language(asked))
        error = ""
        try:
            request = read_object(asked)
            do, name = request.get("do"), request.get("name")
            action = self._actions.get(do) if isinstance(do, str) else None
            if action is None:
                raise InvalidParameter("do", do, f"one of {', '.join(self._actions)}")
            if not isinstance(name, str):
                raise InvalidParameter("name", name, "a model's name")
            visitor.check_owner()
            action(name)
        except Exception as failure:
            if not isinstance(failure, LlamaDemoError):
                LOG.exception("the Models tab could not do it")
            error = words.error(failure)
        return {**self.read(asked, visitor), "error": error}


def _language(asked: Any) -> str:
    language = asked.get("language") if isinstance(asked, dict) else None
    return language if isinstance(language, str) else DEFAULT_LANGUAGE


def build_models(runtime: Runtime, wording: Wording) -> None:
    """Fills the Models tab."""
    folder = resources.files(__package__)
    tab = ModelsPage(runtime)

    def read_models(asked: Any, request: gr.Request) -> View:
        return tab.read(asked, runtime.visitors.of(request))

    def act(asked: Any, request: gr.Request) -> View:
        return tab.act(asked, runtime.visitors.of(request))

    wording.make(
        gr.HTML,
        lambda words: {"value": {"words": page_words(words)}},
        html_template=TEMPLATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[read_models, act],
        apply_default_css=False,
        elem_id="models-state",
    )


def page_words(words: Messages) -> dict[str, str]:
    """What the script says itself."""
    return {key: words(f"models.page_{key}") for key in ("intro", "away", "helps", "reading")}

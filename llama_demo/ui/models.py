"""The Models tab: one piece of the page's own (`models.js`) that shows what the server says and asks it to act."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.messages import DEFAULT_LANGUAGE, Messages
from llama_demo.observe import LOG
from llama_demo.ui.asked import View, read_object
from llama_demo.ui.model_cards import models_view
from llama_demo.ui.model_sheet import pieces_view, sheet_view
from llama_demo.ui.words import Wording
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

SCRIPTS = ("page.js", "models_view.js", "sheet_view.js", "models.js")
PAGE_WORDS = (
    "intro",
    "away",
    "helps",
    "reading",
    "back",
    "parts",
    "attention",
    "cache",
    "fields",
    "tokenizer",
    "playground",
    "playground_help",
    "playground_text",
    "with_bos",
    "fast",
    "sentencepiece",
    "alone",
    "bytes",
)
TEMPLATE = """
<div id="models-scroll">
  <p id="models-intro" data-word="intro"></p>
  <p id="models-error" role="alert"></p>
  <div id="model-sheet"></div>
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
        words, owner = self._words(asked), visitor.is_owner
        return models_view(runtime.models(everything=owner), runtime.memory(), words, owner=owner)

    def act(self, asked: Any, visitor: Visitor) -> View:
        """Does what `asked` says, `{do, name}`, and gives the list afterwards; an error is a sentence in it."""
        with self._worded(asked) as said:
            request = read_object(asked)
            do, name = request.get("do"), _name(request)
            action = self._actions.get(do) if isinstance(do, str) else None
            if action is None:
                raise InvalidParameter("do", do, f"one of {', '.join(self._actions)}")
            visitor.check_owner()
            action(name)
        return {**self.read(asked, visitor), **said}

    def sheet(self, asked: Any, visitor: Visitor) -> View:
        """The sheet of the model `{name}`; an error is a sentence in it."""
        view: View = {}
        with self._worded(asked) as said:
            name = _name(read_object(asked))
            sheet = self._runtime.sheet(name, everything=visitor.is_owner)
            view = sheet_view(sheet, self._title(name), self._words(asked))
        return {**view, **said}

    def split(self, asked: Any, visitor: Visitor) -> View:
        """The tokens of `{text}` for the model `{name}`, with its start token where `{bos}`; an error is a sentence."""
        view: View = {"pieces": [], "count": "", "sentencepiece": None, "quirk": ""}
        with self._worded(asked) as said:
            request = read_object(asked)
            text = request.get("text")
            if not isinstance(text, str):
                raise InvalidParameter("text", text, "a text")
            name, with_bos = _name(request), request.get("bos") is True
            pieces = self._runtime.pieces(name, text, with_bos=with_bos, everything=visitor.is_owner)
            if pieces is not None:
                view = pieces_view(pieces, self._words(asked))
        return {**view, **said}

    def _words(self, asked: Any) -> Messages:
        return self._runtime.messages(_language(asked))

    def _title(self, name: str) -> str:
        return next((model.title for model in self._runtime.models(everything=True) if model.name == name), name)

    @contextmanager
    def _worded(self, asked: Any) -> Iterator[View]:
        """What goes wrong in the block is said, in the words of whoever `asked`, and goes no further."""
        said: View = {"error": ""}
        try:
            yield said
        except Exception as failure:
            if not isinstance(failure, LlamaDemoError):
                LOG.exception("the Models tab could not do it")
            said["error"] = self._words(asked).error(failure)


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str):
        raise InvalidParameter("name", name, "a model's name")
    return name


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

    def read_sheet(asked: Any, request: gr.Request) -> View:
        return tab.sheet(asked, runtime.visitors.of(request))

    def split_text(asked: Any, request: gr.Request) -> View:
        return tab.split(asked, runtime.visitors.of(request))

    wording.make(
        gr.HTML,
        lambda words: {"value": {"words": page_words(words)}},
        html_template=TEMPLATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[read_models, act, read_sheet, split_text],
        apply_default_css=False,
        elem_id="models-state",
    )


def page_words(words: Messages) -> dict[str, str]:
    """What the script says itself."""
    return {key: words(f"models.page_{key}") for key in PAGE_WORDS}

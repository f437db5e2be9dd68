"""The Models tab: one piece of the page's own (`models.js`) that shows what the server says and asks it to act."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.licences import Licence
from llama_demo.messages import DEFAULT_LANGUAGE, Messages, shortened
from llama_demo.observe import LOG
from llama_demo.push_errors import LicenceNotConfirmed
from llama_demo.reasons import Reason
from llama_demo.saving import MOST_SLICES, Changes
from llama_demo.ui.asked import View, read_object
from llama_demo.ui.model_cards import models_view, terms_words
from llama_demo.ui.model_sheet import pieces_view, sheet_view
from llama_demo.ui.words import Wording
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

DTYPES = ("auto", "float16", "bfloat16", "float32")
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
    "owner",
    "add",
    "add_button",
    "add_help",
    "token",
    "sign_in",
    "remember",
    "token_help",
    "push",
    "push_button",
    "push_repo",
    "push_dtype",
    "push_auto",
    "push_pad",
    "push_slices",
    "push_public",
    "push_read",
    "push_help",
)
TEMPLATE = """
<div id="models-scroll">
  <p id="models-intro" data-word="intro"></p>
  <p id="models-error" role="alert"></p>
  <div id="model-sheet"></div>
  <details id="models-owner" hidden><summary data-word="owner"></summary><div>
    <form id="models-add">
      <label for="models-path" data-word="add"></label>
      <div class="line"><input id="models-path" type="text" autocomplete="off" spellcheck="false" maxlength="1000">
      <button type="submit" data-word="add_button"></button></div>
      <p class="subdued" data-word="add_help"></p>
    </form>
    <form id="models-sign-in">
      <label for="models-token" data-word="token"></label>
      <div class="line"><input id="models-token" type="password" autocomplete="off" maxlength="300">
      <button type="submit" data-word="sign_in"></button></div>
      <label class="choice"><input id="models-remember" type="checkbox"><span data-word="remember"></span></label>
      <p class="subdued" data-word="token_help"></p>
    </form>
    <form id="models-push" hidden>
      <label for="models-push-name" data-word="push"></label>
      <select id="models-push-name"></select>
      <div class="line"><input id="models-push-repo" type="text" autocomplete="off" spellcheck="false" maxlength="200"
        placeholder="OWNER/NAME" data-label="push_repo"><button type="submit" data-word="push_button"></button></div>
      <div class="line several"><select id="models-push-dtype" data-label="push_dtype">
        <option value="auto" data-word="push_auto"></option>
        <option>float16</option><option>bfloat16</option><option>float32</option></select>
      <input id="models-push-pad" type="text" autocomplete="off" maxlength="100" data-label="push_pad">
      <input id="models-push-slices" type="number" min="1" max="64" data-label="push_slices"></div>
      <label class="choice"><input id="models-push-public" type="checkbox"><span data-word="push_public"></span></label>
      <p id="models-push-terms"></p>
      <label class="choice" id="models-push-confirm"><input id="models-push-read" type="checkbox"><span
        data-word="push_read"></span></label>
      <p class="subdued" data-word="push_help"></p>
    </form>
  </div></details>
  <p id="models-done" role="status"></p>
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
            "cancel": management.cancel,
            "download": management.download,
            "convert": management.convert,
            "check_access": management.check_access,
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
                raise InvalidParameter("do", do, Reason("expected.one_of", choices=tuple(self._actions)))
            visitor.check_owner()
            action(name)
        return {**self.read(asked, visitor), **said}

    def add(self, asked: Any, visitor: Visitor) -> View:
        """Adds the model that `{path}` names, and gives the list with it."""
        with self._worded(asked) as said:
            path = read_object(asked).get("path")
            if not isinstance(path, str):
                raise InvalidParameter("path", path, Reason("expected.text"))
            visitor.check_owner()
            said["done"] = self._words(asked)("models.added_now", name=self._runtime.management.add(path))
        return {**self.read(asked, visitor), **said}

    def sign_in(self, asked: Any, visitor: Visitor) -> View:
        """Signs the owner in with `{token}`, for later starts too where `{remember}`; the token goes nowhere else."""
        with self._worded(asked) as said:
            request = read_object(asked)
            token = request.get("token")
            if not isinstance(token, str) or not token.strip():
                raise InvalidParameter("token", "", Reason("expected.hub_token"))
            visitor.check_owner()
            who = self._runtime.management.sign_in(token, remember=request.get("remember") is True)
            said["done"] = self._words(asked)("models.signed_in", name=shortened(who))
        return {**self.read(asked, visitor), **said}

    def push(self, asked: Any, visitor: Visitor) -> View:
        """Begins to save the model `{name}` and to put it into `{repo}` on the Hub: private unless `{public}`, and with
        `{confirmed}` where its licence must be read. `{dtype, pad_token, slices}` are what is changed on the way."""
        with self._worded(asked) as said:
            request, words = read_object(asked), self._words(asked)
            visitor.check_owner()
            name, repo, changes = _name(request), _text(request, "repo").strip(), _changes(request)
            private, confirmed = request.get("public") is not True, request.get("confirmed") is True
            try:
                self._runtime.management.push(name, repo, changes, private=private, confirmed=confirmed)
                said["done"] = words("models.pushing", repo=repo)
            except LicenceNotConfirmed as terms:
                said["error"] = terms_words(terms.backbone, Licence(terms.licence, terms.link), words)
        return {**self.read(asked, visitor), **said}

    def sheet(self, asked: Any, visitor: Visitor) -> View:
        """The sheet of the model `{name}`; an error is a sentence in it."""
        view: View = {}
        with self._worded(asked) as said:
            name = _name(read_object(asked))
            sheet = self._runtime.sheet(name, everything=visitor.is_owner)
            needs = self._runtime.needs(name, everything=visitor.is_owner)
            view = sheet_view(sheet, needs, self._words(asked))
        return {**view, **said}

    def split(self, asked: Any, visitor: Visitor) -> View:
        """The tokens of `{text}` for the model `{name}`, with its start token where `{bos}`; an error is a sentence."""
        view: View = {"pieces": [], "count": "", "sentencepiece": None, "quirk": ""}
        with self._worded(asked) as said:
            request = read_object(asked)
            text = request.get("text")
            if not isinstance(text, str):
                raise InvalidParameter("text", text, Reason("expected.text"))
            name, with_bos = _name(request), request.get("bos") is True
            pieces = self._runtime.pieces(name, text, with_bos=with_bos, everything=visitor.is_owner)
            if pieces is not None:
                view = pieces_view(pieces, self._words(asked))
        return {**view, **said}

    def _words(self, asked: Any) -> Messages:
        return self._runtime.messages(_language(asked))

    @contextmanager
    def _worded(self, asked: Any) -> Iterator[View]:
        """What goes wrong in the block is said, in the words of whoever `asked`, and goes no further."""
        said: View = {"error": "", "done": ""}
        try:
            yield said
        except Exception as failure:
            if not isinstance(failure, LlamaDemoError):
                LOG.exception("the Models tab could not do it")
            said["error"] = self._words(asked).error(failure)


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str):
        raise InvalidParameter("name", name, Reason("expected.model_name"))
    return name


def _text(request: Mapping[str, Any], field: str) -> str:
    text = request.get(field, "")
    if not isinstance(text, str):
        raise InvalidParameter(field, text, Reason("expected.text"))
    return text


def _changes(request: Mapping[str, Any]) -> Changes:
    dtype, slices = request.get("dtype", "auto"), request.get("slices", 0)
    if dtype not in DTYPES:
        raise InvalidParameter("dtype", dtype, Reason("expected.one_of", choices=tuple(DTYPES)))
    if isinstance(slices, bool) or not isinstance(slices, int) or not 0 <= slices <= MOST_SLICES:
        raise InvalidParameter("slices", slices, Reason("expected.slices", most=MOST_SLICES))
    return Changes(dtype, _text(request, "pad_token").strip(), slices)


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

    def add_model(asked: Any, request: gr.Request) -> View:
        return tab.add(asked, runtime.visitors.of(request))

    def sign_in(asked: Any, request: gr.Request) -> View:
        return tab.sign_in(asked, runtime.visitors.of(request))

    def push_model(asked: Any, request: gr.Request) -> View:
        return tab.push(asked, runtime.visitors.of(request))

    def read_sheet(asked: Any, request: gr.Request) -> View:
        return tab.sheet(asked, runtime.visitors.of(request))

    def split_text(asked: Any, request: gr.Request) -> View:
        return tab.split(asked, runtime.visitors.of(request))

    wording.make(
        gr.HTML,
        lambda words: {"value": {"words": page_words(words)}},
        html_template=TEMPLATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[read_models, act, add_model, sign_in, push_model, read_sheet, split_text],
        apply_default_css=False,
        elem_id="models-state",
    )


def page_words(words: Messages) -> dict[str, str]:
    """What the script says itself."""
    return {key: words(f"models.page_{key}") for key in PAGE_WORDS}

"""The page as a whole: what it publishes, what it does not, and whose words it speaks."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from llama_demo import ui
from llama_demo.errors import LoadFailed
from llama_demo.messages import Messages, messages
from llama_demo.ui.chat import PAGE_WORDS
from llama_demo.ui.endpoints import Endpoints
from llama_demo.ui.header import model_label, model_words, status
from llama_demo.ui.words import Wording
from llama_demo.values import LoadProgress, ModelState
from tests.ui.scripted import scripted

ENDPOINTS = {"chat", "generate", "score", "classify", "train_classifier", "models"}


@pytest.fixture(scope="module")
def page() -> Any:
    return ui.build(scripted())


def test_only_the_public_endpoints_have_names(page: Any) -> None:
    info = page.get_api_info()
    assert set(info["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    assert not info["unnamed_endpoints"]


def test_every_event_of_the_page_is_private(page: Any) -> None:
    named = [fn for fn in page.fns.values() if fn.api_visibility == "public"]
    assert {fn.api_name for fn in named} == ENDPOINTS


def test_no_event_waits_in_gradio_s_own_line(page: Any) -> None:
    assert all(fn.concurrency_limit is None for fn in page.fns.values() if fn.fn is not None)


def test_chat_takes_the_arguments_of_the_public_interface(page: Any) -> None:
    parameters = page.get_api_info()["named_endpoints"]["/chat"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == [
        "message",
        "history",
        "model",
        "system_prompt",
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "seed",
    ]
    assert [parameter["parameter_has_default"] for parameter in parameters] == [False] + [True] * 9


def test_gradio_s_own_extras_are_off(page: Any) -> None:
    options = ui.launch_options(scripted())
    assert options["run_history"] is False
    assert options["enable_monitoring"] is False
    assert page.analytics_enabled is False


def test_as_many_events_run_at_once_as_the_settings_allow() -> None:
    options = ui.launch_options(scripted(concurrent=64, queue=512))
    assert options["max_threads"] > 576


def test_the_theme_fetches_nothing() -> None:
    css = ui.launch_options(scripted())["theme"]
    assert not css._stylesheets
    assert 'url("http' not in css._get_theme_css()


def test_replies_are_sanitized(page: Any) -> None:
    chatbot = next(block for block in page.blocks.values() if block.get_block_name() == "chatbot")
    assert chatbot.sanitize_html is True
    assert chatbot.allow_tags is False


def test_the_footer_says_what_the_server_keeps() -> None:
    def said(*, log_prompts: bool = False) -> str:
        built = ui.build(scripted(log_prompts=log_prompts))
        return json.dumps(built.get_config_file())

    words = messages()
    assert words("page.kept_nothing") in said()
    assert words("page.kept_log") in said(log_prompts=True)
    assert words("page.kept_nothing") not in said(log_prompts=True)


def test_a_second_language_is_one_more_table() -> None:
    english = messages()
    other = Messages("xx", {key: f"<{key}>" for key in english.table})
    wording = Wording(lambda language: other if language == "xx" else english)

    def component(**properties: str) -> dict[str, str]:
        return properties

    made = wording.make(component, {"label": "chat.send", "info": "chat.seed_help"})
    assert made == {"label": "Send", "info": english("chat.seed_help")}
    assert wording.updates("xx")[0]["label"] == "<chat.send>"
    assert "label" not in wording.updates("en")[0]
    assert "label" not in wording.updates("no such language")[0]


def test_every_component_with_words_is_reworded_when_there_is_a_second_table(monkeypatch: pytest.MonkeyPatch) -> None:
    english = messages()
    other = Messages("xx", {key: f"<{key}>" for key in english.table})
    runtime = scripted()
    runtime.messages = lambda language="en": other if language == "xx" else english
    monkeypatch.setattr(ui, "languages", lambda: ("en", "xx"))
    page = ui.build(runtime)
    reword = next(fn for fn in page.fns.values() if getattr(fn.fn, "__name__", "") == "reword")
    updates = asyncio.run(reword.fn("xx"))
    assert len(updates) == len(reword.outputs)
    said = json.dumps(updates)
    for key in [key for key in english.table if key.startswith("chat.") and f"{key}_help" in english.table]:
        assert f"<{key}>" in said
    assert "<page.about>" in said
    assert f"<chat.{PAGE_WORDS[0]}>" in said


def test_the_script_s_words_are_in_the_table() -> None:
    table = messages().table
    assert all(f"chat.{key}" in table for key in PAGE_WORDS)


def test_the_header_shows_the_load_s_progress_and_why_it_failed() -> None:
    words = messages()
    loading: Any = SimpleNamespace(
        state=ModelState.LOADING, progress=LoadProgress("load", 1_000_000, 2_000_000, seconds=1), error=None
    )
    assert model_words(loading, words) == "loading · 1 MB of 2 MB · 1 s"
    failed: Any = SimpleNamespace(state=ModelState.FAILED, progress=None, error=LoadFailed("it", ValueError("secret")))
    assert model_words(failed, words) == words.error(failed.error)
    assert "secret" not in model_words(failed, words)


def test_the_picker_says_what_does_not_fit() -> None:
    large: Any = SimpleNamespace(title="Llama-2 70B", bytes=138_000_000_000, fits=False, where="too_large")
    assert model_label(large, messages()) == "Llama-2 70B · 138.0 GB · too large here"


@pytest.mark.parametrize("asked", [None, 5, {}, {"model": "no such"}, {"model": 7, "language": ["x"]}])
def test_the_status_survives_whatever_is_sent(asked: Any) -> None:
    assert status(scripted(), asked)["model"] == "ready"


def test_the_profile_is_named() -> None:
    assert status(scripted(), {})["profile"] == "fast"
    assert status(scripted(reproducible=True), {})["profile"] == "reproducible"


def test_an_endpoint_s_error_is_its_words_alone() -> None:
    async def call(**arguments: Any) -> None:
        async for _ in Endpoints(scripted()).chat(**arguments):
            pass

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"message": ""}, "empty"),
        ({"message": 5}, "message"),
        ({"message": "x", "temperature": float("nan")}, "temperature"),
        ({"message": "x", "history": [{"role": "alien", "content": ""}]}, "alien"),
        ({"message": "x", "model": ["y"]}, "model"),
        ({"message": "\ud800"}, "broken character"),
    ]
    for arguments, words in wrong:
        with pytest.raises(Exception, match=words) as caught:
            asyncio.run(call(**arguments))
        assert type(caught.value).__name__ == "Error"
        assert caught.value.print_exception is False  # type: ignore[attr-defined]

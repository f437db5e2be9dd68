"""The Models tab in a real browser: what the command line converted is added, loaded, chatted with and unloaded."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from llama_demo.catalog import EMBEDDED
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served
from tests.browser.tab_page import wrong_with
from tests.browser.test_layout import WIDER
from tests.checkpoints import meta_model

LOAD_MILLISECONDS = 120_000
CONTEXT_TOKENS = 256
UNITS = {"MB": 1e6, "GB": 1e9}
SHAPE = meta_model.Shape(dim=256, layers=4, heads=8, kv_heads=2)


@pytest.fixture
def converted(tmp_path: Path, tiny_sentencepiece_folder: Path) -> Path:
    """A model in Meta's layout, as the command `convert` writes it."""
    source, target = tmp_path / "meta", tmp_path / "from-meta.gguf"
    meta_model.write(source, SHAPE, tiny_sentencepiece_folder / "tokenizer.model")
    command = [sys.executable, "-m", "llama_demo", "convert", str(source), str(target), "--to", "gguf"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target


def open_models(page: Page, address: str) -> ChatPage:
    """The Models tab, with the chat beside it."""
    chat = ChatPage(page, address)
    page.locator("#models-tab-button").click()
    expect(page.locator("#models-scroll")).to_have_attribute("data-ready", "yes")
    return chat


def card(page: Page, name: str) -> Locator:
    return page.locator(f'.model-card[data-key="{name}"]')


def add(page: Page, path: str) -> None:
    page.locator("#models-owner summary").click()
    page.fill("#models-path", path)
    page.press("#models-path", "Enter")


@pytest.fixture
def of_its_own(tmp_path: Path) -> Iterator[Served]:
    """An app that no other test asks: what is added to it is the next test's to choose from."""
    app = Served(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    app.start()
    yield app
    app.stop()


@pytest.mark.slow
def test_what_the_command_line_converted_is_added_loaded_chatted_with_and_unloaded(
    of_its_own: Served, context: BrowserContext, converted: Path
) -> None:
    chat = open_models(context.new_page(), of_its_own.address)
    page = chat.page
    add(page, str(converted))
    model = card(page, "from-meta")
    expect(model).to_contain_text("runs here")
    page.evaluate(
        """() => {
          window.states = new Set();
          const look = () => window.states.add(document.querySelector('[data-key="from-meta"]')?.dataset.state);
          const watched = { subtree: true, childList: true };
          new MutationObserver(look).observe(document.querySelector("#models-groups"), watched);
        }"""
    )
    before = set(psutil.Process().children(recursive=True))
    model.get_by_role("button", name="Load").click()
    expect(model).to_have_attribute("data-state", "ready", timeout=LOAD_MILLISECONDS)
    assert "loading" in page.evaluate("[...window.states]")
    bar = page.locator("#models-devices li", has_text="from-meta")
    expect(bar).to_contain_text("ready")
    workers = set(psutil.Process().children(recursive=True)) - before
    assert len(workers) == 1, "the engine is a process of its own"
    model.get_by_role("button", name="Use it").click()
    expect(page.locator("#model-picker input")).to_have_value(re.compile("from-meta"))
    chat.greedy(8)
    chat.ask("Where do the boats go?")
    assert chat.last_turn()["model"] == "from-meta"
    page.locator("#models-tab-button").click()
    model.get_by_role("button", name="Unload").click()
    expect(bar).to_have_count(0, timeout=LOAD_MILLISECONDS)
    assert not any(worker.is_running() for worker in workers)


def fill_the_cache(address: str) -> None:
    """Texts that begin differently, of more tokens together than the cache of eight conversations has room for."""
    for first in range(10):
        asked = {"model": EMBEDDED.name, "prompt": [1000 + first] * (CONTEXT_TOKENS - 10), "max_tokens": 1}
        httpx.post(f"{address}/v1/completions", json=asked, timeout=60).raise_for_status()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is Linux's own figure")
def test_unloading_gives_back_the_memory_that_the_card_said(context: BrowserContext, cache_folder: Path) -> None:
    app = Served(cache_folder, "--context-tokens", str(CONTEXT_TOKENS))
    before = set(psutil.Process().children(recursive=True))
    app.start()
    try:
        page = open_models(context.new_page(), app.address).page
        model = card(page, EMBEDDED.name)
        expect(model).to_have_attribute("data-state", "ready", timeout=LOAD_MILLISECONDS)
        fill_the_cache(app.address)
        said = re.search(r"Takes ([\d.]+) (MB|GB)", model.inner_text())
        assert said is not None

        def used() -> int:
            processes = set(psutil.Process().children(recursive=True)) - before
            return sum(process.memory_info().rss for process in processes if "chrom" not in process.name())

        held = used()
        model.get_by_role("button", name="Unload").click()
        expect(page.locator("#models-devices")).to_contain_text("no model is in memory", timeout=LOAD_MILLISECONDS)
        assert held - used() == pytest.approx(float(said[1]) * UNITS[said[2]], rel=0.1)
        page.close()  # it asks how the models are, again and again
    finally:
        app.stop()


def test_a_model_s_sheet_opens_by_keyboard_and_its_playground_follows_what_is_typed(
    context: BrowserContext, served: Served
) -> None:
    page = open_models(context.new_page(), served.address).page
    button = card(page, "smollm2-135m-instruct").get_by_role("button", name="Sheet")
    button.focus()
    button.press("Enter")
    expect(page.locator(".sheet h3")).to_be_focused(timeout=LOAD_MILLISECONDS)
    expect(page.locator(".sheet .total")).to_contain_text("134")
    assert page.locator(".heads rect.query").count() == 9
    assert page.locator(".heads rect.key").count() == 3
    page.fill("#sheet-text", "<b>Hello</b> world")
    expect(page.locator("#sheet-pieces .piece b")).to_contain_text(["Hello", "Ġworld"])
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_what_is_too_large_says_why_on_a_phone_without_a_sideways_scroll(phone: BrowserContext, served: Served) -> None:
    page = open_models(phone.new_page(), served.address).page
    expect(card(page, "llama-2-70b-hf")).to_contain_text("What would help")
    assert wrong_with(page, WIDER, "#models-scroll, html") == []


def test_bad_input_is_answered_where_it_was_given(context: BrowserContext, served: Served) -> None:
    page = open_models(context.new_page(), served.address).page
    add(page, "/nowhere/<img src=x onerror=alert(1)>")
    expect(page.locator("#models-error")).to_contain_text("there is no such file or folder")
    expect(page.locator("#models-path")).to_have_value(re.compile("nowhere"))


def test_an_error_stays_when_something_asked_for_earlier_ends_well_later(
    of_its_own: Served, context: BrowserContext, tiny_folder: Path
) -> None:
    page = open_models(context.new_page(), of_its_own.address).page
    held: list[Route] = []

    def hold(route: Route) -> None:
        if '"add_model"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/component_server**", hold)
    add(page, str(tiny_folder))
    page.fill("#models-push-repo", "no repository")
    page.press("#models-push-repo", "Enter")
    expect(page.locator("#models-error")).to_contain_text("OWNER/NAME")
    held[0].continue_()
    expect(card(page, "tiny-llama")).to_contain_text("runs here")
    expect(page.locator("#models-error")).to_contain_text("OWNER/NAME")


def test_a_model_whose_licence_binds_is_put_on_the_hub_only_once_that_is_confirmed(
    of_its_own: Served, context: BrowserContext, tiny_folder: Path
) -> None:
    page = open_models(context.new_page(), of_its_own.address).page
    add(page, str(tiny_folder))
    select, terms, error = page.locator("#models-push-name"), page.locator("#models-push-terms"), "#models-error"
    select.select_option(EMBEDDED.name)
    expect(terms).to_be_empty()
    expect(page.locator("#models-push-confirm")).to_be_hidden()
    page.fill("#models-push-repo", "no repository")
    page.press("#models-push-repo", "Enter")
    expect(page.locator(error)).to_contain_text("OWNER/NAME")
    select.select_option("tiny-llama")
    expect(terms).to_contain_text("only as its licence allows")
    page.fill("#models-push-repo", "somebody/copy")
    page.press("#models-push-repo", "Enter")
    expect(page.locator(error)).to_have_text(terms.inner_text())
    page.check("#models-push-read")
    page.press("#models-push-repo", "Enter")
    expect(page.locator("#models-done")).to_contain_text("somebody/copy")
    expect(card(page, "tiny-llama")).to_contain_text("Nothing was put into somebody/copy", timeout=LOAD_MILLISECONDS)

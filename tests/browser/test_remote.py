"""A model that another server runs, on the page: its card, its texts, which have no ids, and what becomes of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from tests.api.conftest import launched
from tests.browser.text_page import TextPage
from tests.remote_server import MODEL, WORDS, Exchange, RemoteStand, stand

TEXT = "".join(WORDS)
START = "Once upon a time "


@pytest.fixture
def far() -> Iterator[RemoteStand]:
    with stand() as made:
        yield made


@pytest.fixture
def text(far: RemoteStand, context: BrowserContext, tmp_path: Path) -> Iterator[TextPage]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    catalog = tmp_path / "catalog.toml"
    entry = {"name": "far", "title": "Far away", "good_for": "Elsewhere.", "base_url": far.base_url}
    lines = [f'{name} = "{value}"' for name, value in {**entry, "remote_model": MODEL}.items()]
    catalog.write_text("\n".join(["[[model]]", *lines]))
    with Runtime(Settings(catalog=str(catalog), model="far", cache_dir=tmp_path)) as runtime, launched(runtime) as at:
        page = TextPage(context.new_page(), at)
        page.turn()
        yield page


def counted(exchange: Exchange) -> None:
    """Each answer ends with its seed, so that alternatives differ."""
    exchange.piece(TEXT)
    exchange.piece(f" {exchange.heard.body['seed']}", "stop")
    exchange.usage(5, 5)
    exchange.end()


def test_texts_without_ids_are_branches_that_go_on_and_are_written_again(text: TextPage, far: RemoteStand) -> None:
    text.box.fill(START)
    text.go()
    assert text.text == START + TEXT
    assert text.new_part == TEXT
    text.go()
    assert text.text == START + TEXT + TEXT
    assert far.heard[-1].body["prompt"] == START + TEXT
    text.go(button="#text-again")
    assert far.heard[-1].body["prompt"] == START + TEXT
    far.next(counted)
    text.set_number("n", 3)
    text.go()
    cards = text.page.locator("#text-cards .card")
    expect(cards).to_have_count(3)
    cards.nth(1).locator("button").click()
    seeds = sorted(one.body["seed"] for one in far.heard[-3:])
    assert text.new_part in {f"{TEXT} {seed}" for seed in seeds}
    expect(text.branches).not_to_have_count(0)
    text.view("tokens")
    expect(text.page.locator("#text-error")).to_contain_text("keeps the model's tokens to itself")


def test_its_card_says_where_it_is_and_when_it_is_away(text: TextPage, far: RemoteStand) -> None:
    text.page.click("#models-tab-button")
    card = text.page.locator('.model-card[data-key="far"]')
    expect(card).to_contain_text("runs on another server")
    expect(card).to_contain_text("ready")
    far.stop()
    text.page.click("#text-tab-button")
    text.box.fill(START)
    text.go()
    assert "runs on another server" in text.error
    assert text.text == START, "nothing of the visitor's is lost"
    text.page.click("#models-tab-button")
    expect(card).to_contain_text("nobody answers there now")
    far.start()

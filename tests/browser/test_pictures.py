"""Nothing is drawn over anything else, hidden or cut off, at the width of a phone, a tablet and a desk, on every tab,
empty and full: by pictures of what the browser really draws."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chat_page import ChatPage
from tests.browser.classify_page import ClassifyPage
from tests.browser.conftest import Served, watched_context
from tests.browser.pictures import faults
from tests.browser.test_every_tab import LOCALES, each_tab, table
from tests.browser.test_layout import STORE, WIDE, cut_off
from tests.browser.text_page import TextPage
from tests.waiting import wait_until

WIDTHS = (360, 768, 1440)
HEIGHT = 900
BROKEN = {
    "letters over letters": "#model-picker { margin-left: -60px !important; }",
    "over a control": "#chat-keys { position: relative; top: 40px; }",
    "letters that are not seen": "#about { position: relative; } "
    "#about::after { content: ''; position: absolute; inset: 0; background: var(--body-background-fill); }",
    "letters cut off": "#send { width: 24px !important; padding: 0 !important; overflow: hidden; }",
}
SECONDS = 120_000


@pytest.mark.parametrize(
    ("language", "width"),
    [
        ("en", 360),
        *(pytest.param("en", width, marks=pytest.mark.slow) for width in WIDTHS[1:]),
        *(pytest.param("ko", width, marks=pytest.mark.slow) for width in WIDTHS),
    ],
)
def test_on_empty_tabs_nothing_is_over_anything_or_cut_off(
    browser: Browser, served: Served, language: str, width: int
) -> None:
    viewport = {"width": width, "height": HEIGHT}
    with watched_context(browser, locale=LOCALES[language], viewport=viewport, reduced_motion="reduce") as context:
        chat = ChatPage(context.new_page(), served.address)
        expect(chat.page.locator("html")).to_have_attribute("lang", language)
        for name in each_tab(chat.page):
            assert [*cut_off(chat), *faults(chat.page)] == [], name


def at_every_width(page: Page) -> dict[int, list[str]]:
    """What is wrong, by the width at which it is; the panels are shut, as they are on a phone."""
    found = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.wait_for_function("width => innerWidth === width", arg=width)
        found[width] = faults(page)
    page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    return {width: wrong for width, wrong in found.items() if wrong}


@pytest.mark.slow
@pytest.mark.parametrize("language", list(LOCALES))
def test_on_full_tabs_nothing_is_over_anything_or_cut_off(browser: Browser, served: Served, language: str) -> None:
    viewport = {"width": WIDTHS[0], "height": HEIGHT}
    with watched_context(browser, locale=LOCALES[language], viewport=viewport, reduced_motion="reduce") as context:
        chat = ChatPage(context.new_page(), served.address)
        page = chat.page
        page.evaluate(STORE, WIDE)
        chat.reload()
        expect(page.locator("#conversation")).to_contain_text("www")
        assert at_every_width(page) == {}

        text = TextPage.beside(chat)
        text.greedy(16)
        text.set_number("n", 2)
        text.box.fill("The capital of South Korea is")
        text.go()
        assert at_every_width(page) == {}
        page.locator("#text-cards .card button").first.click()
        text.read_tokens()
        text.tokens.nth(5).click()
        assert at_every_width(page) == {}

        classify = ClassifyPage.beside(chat)
        classify.example(table(language)["classify.example_review"])
        expect(page.locator("#classify-found .explained")).to_be_visible(timeout=SECONDS)
        assert at_every_width(page) == {}
        classify.view("train")
        page.click("#train-sample")
        expect(page.locator("#train-preview .bars")).to_be_visible()
        assert at_every_width(page) == {}

        page.click("#models-tab-button")
        page.locator(".model-card [data-do=sheet]").first.click()
        expect(page.locator("#sheet-pieces .piece").first).to_be_visible(timeout=SECONDS)
        assert at_every_width(page) == {}


@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_page_that_is_broken_on_purpose_is_found_out(chat: ChatPage, fault: str) -> None:
    assert faults(chat.page) == []
    chat.page.add_style_tag(content=BROKEN[fault])
    wait_until(lambda: any(found.startswith(fault) for found in faults(chat.page)))  # a first look once missed it

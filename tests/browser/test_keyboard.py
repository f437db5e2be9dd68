"""The page without a mouse: every tab's work is done by keys alone, from the first Tab on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served

MOST_STOPS = 150
LONG_MILLISECONDS = 120_000


def tab_to(page: Page, place: str, *, key: str = "Tab") -> None:
    """Presses `key` until the focus is in `place`."""
    for _ in range(MOST_STOPS):
        page.keyboard.press(key)
        if page.evaluate("(place) => document.activeElement.closest(place) !== null", place):
            return
    raise AssertionError(f"{place} is not reached by {key}")


def turn_to(page: Page, tab: str) -> None:
    tab_to(page, f"#{tab}-tab-button", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(f"#{tab}-tab-button")).to_have_attribute("aria-selected", "true")


def wait_until_idle(page: Page) -> None:
    expect(page.locator("body")).not_to_have_class(re.compile("-busy"), timeout=LONG_MILLISECONDS)


@pytest.mark.slow
def test_every_tab_s_work_is_done_by_keys_alone(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), served.address)
    page, keys = chat.page, chat.page.keyboard

    tab_to(page, "#message")
    keys.type("Write a very long story about a dog called Biscuit who walks from Seoul to Busan.")
    keys.press("Enter")
    chat.wait_for_text(40)
    tab_to(page, "#stop")
    keys.press("Enter")
    chat.wait_until_idle()
    assert "stopped" in chat.conversation

    turn_to(page, "text")
    tab_to(page, "#text-box")
    keys.type("The capital of South Korea is")
    tab_to(page, "#text-go")
    keys.press("Enter")
    expect(page.locator("#text-backdrop mark")).not_to_be_empty(timeout=LONG_MILLISECONDS)
    wait_until_idle(page)
    tab_to(page, "#text-views", key="Shift+Tab")
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    expect(page.locator("#text-views [data-view=tokens]")).to_be_focused()
    keys.press("Enter")
    page.wait_for_selector("#tokens [data-index]", timeout=LONG_MILLISECONDS)
    wait_until_idle(page)
    tab_to(page, "#tokens")
    keys.press("ArrowRight")
    tab_to(page, "#token-alternatives")
    keys.press("Enter")
    expect(page.locator("#text-branches button")).to_have_count(2, timeout=LONG_MILLISECONDS)
    wait_until_idle(page)

    turn_to(page, "classify")
    page.wait_for_selector("body.classify-ready")
    tab_to(page, "#labels")
    keys.type("positive\nnegative")
    tab_to(page, "#classify-text")
    keys.type("I love this lamp.")
    tab_to(page, "#classify-go")
    keys.press("Enter")
    expect(page.locator("#classify-found .bars li")).to_have_count(2, timeout=LONG_MILLISECONDS)

    turn_to(page, "models")
    tab_to(page, ".model-card [data-do=sheet]")
    keys.press("Enter")
    expect(page.locator(".sheet h3")).to_be_focused(timeout=LONG_MILLISECONDS)
    keys.press("Escape")
    expect(page.locator(".sheet")).to_have_count(0)

    tab_to(page, "#language", key="Shift+Tab")
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "ko")


def test_a_list_that_the_focus_leaves_by_tab_closes(context: BrowserContext, served: Served) -> None:
    page = ChatPage(context.new_page(), served.address).page
    lists = page.get_by_role("listbox")
    for place in ("#model-picker", "#language"):
        page.locator(f"{place} input").focus()
        expect(lists).to_have_count(1)
        page.keyboard.press("Tab")
        expect(page.locator(f"{place} input")).to_have_attribute("aria-expanded", re.compile("false"))
        expect(page.locator(f"{place} input")).not_to_be_focused()
    page.keyboard.press("Tab")
    expect(lists).to_have_count(0)


def test_arrows_go_along_every_row_of_tabs_and_round_its_ends(context: BrowserContext, served: Served) -> None:
    page = ChatPage(context.new_page(), served.address).page
    for first, row in (
        ("#chat-tab-button", "#tabs > .tab-wrapper"),
        ("#text-tab-button", "#text-views"),
        ("#classify-tab-button", "#classify-views > .tab-wrapper"),
    ):
        page.click(first)
        tabs = page.locator(f"{row} [role=tab]:visible")
        tabs.first.focus()
        page.keyboard.press("ArrowLeft")
        expect(tabs.last).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(tabs.first).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(tabs.nth(1)).to_be_focused()
        expect(tabs.first).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Enter")
        expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")

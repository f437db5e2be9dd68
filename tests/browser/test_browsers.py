"""A browser that lacks something: what the visitor is told, and what works all the same. And errors are watched for."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chat_page import ChatPage
from tests.browser.classify_page import ClassifyPage
from tests.browser.conftest import Served, watched_context
from tests.browser.test_every_tab import LOCALES, table
from tests.browser.text_page import TextPage

WITHOUT_HAS = "const asked = CSS.supports; CSS.supports = (...words) => !words[0].includes(':has') && asked(...words);"
WITHOUT_STORAGE = """
  for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });
"""


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_browser_that_is_too_old_is_told_so_and_shows_what_it_can(
    browser: Browser, served: Served, language: str
) -> None:
    with watched_context(browser, locale=LOCALES[language]) as context:
        context.add_init_script(WITHOUT_HAS)
        chat = ChatPage(context.new_page(), served.address)
        expect(chat.page.get_by_role("alert").first).to_have_text(table(language)["page.too_old"])
        chat.greedy(4)
        assert chat.ask("What colour is grass?")


def test_a_browser_that_is_not_too_old_is_told_nothing(chat: ChatPage) -> None:
    expect(chat.page.locator(".first-words")).to_have_count(0)


def test_where_the_page_s_own_scripts_do_not_run_at_all_the_sentence_is_there(browser: Browser, served: Served) -> None:
    with watched_context(browser, server_stops=True) as context:
        context.add_init_script("delete Array.prototype.findLast")
        context.route("**/assets/**", lambda route: route.abort())
        page = context.new_page()
        page.goto(served.address)
        expect(page.get_by_role("alert")).to_have_text(table("en")["page.too_old"])


def test_without_javascript_the_page_says_what_to_do_in_every_language(browser: Browser, served: Served) -> None:
    with watched_context(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(served.address)
        for language in LOCALES:
            expect(page.locator("#no-script")).to_contain_text(table(language)["page.no_script"])


@pytest.mark.slow
def test_where_storage_is_forbidden_every_tab_works(browser: Browser, served: Served) -> None:
    with watched_context(browser) as context:
        context.add_init_script(WITHOUT_STORAGE)
        chat = ChatPage(context.new_page(), served.address)
        chat.greedy(4)
        assert chat.ask("What colour is grass?")
        assert "storage is full or turned off" in chat.error
        text = TextPage.beside(chat)
        text.greedy(4)
        text.box.fill("The sky is")
        text.go()
        assert text.new_part
        assert "storage is full or turned off" in text.error
        classify = ClassifyPage.beside(chat)
        classify.page.fill("#labels textarea", "praise\ncomplaint")
        expect(classify.page.locator("#classify-lost")).to_contain_text("storage is full or turned off")
        assert len(classify.classify("I love this lamp.")) == 2


@pytest.mark.parametrize("wrong", ["throw new Error('broken')", "Promise.reject(new Error('broken'))"])
def test_an_error_of_a_script_fails_the_test_in_which_it_happens(browser: Browser, wrong: str) -> None:
    watched = watched_context(browser)
    page = watched.__enter__().new_page()
    with page.expect_event("pageerror"):
        page.evaluate(f"setTimeout(() => {{ {wrong} }})")
    with pytest.raises(AssertionError, match="broken"):
        watched.__exit__(None, None, None)


def test_no_test_opens_a_browser_that_is_not_watched() -> None:
    opening = [
        path.name
        for path in Path(__file__).parent.glob("*.py")
        if any(f".{call}(" in path.read_text(encoding="utf-8") for call in ("new_context", "launch_persistent_context"))
    ]
    assert opening == ["conftest.py"]

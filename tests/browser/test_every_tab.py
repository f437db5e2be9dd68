"""What holds on every tab there is: both languages, both schemes, the keyboard, no motion where none is wanted, and
nothing serious that axe finds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served, watched_context
from tests.browser.tab_page import wrong_with
from tests.browser.text_page import TextPage

TABS = 4
SERIOUS = ("serious", "critical")
LOCALES = {"en": "en-US", "ko": "ko-KR"}
_SEEN = """() => [...document.querySelectorAll("a[href], button, input, textarea, select, summary, [tabindex='0']")]
  .filter((element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
  .filter((element) => !element.disabled && !element.closest("[inert], .sr-only, .visually-hidden"))
  .filter((element) => Math.min(element.getBoundingClientRect().width, element.getBoundingClientRect().height) > 1)"""
_MARK = "() => { (" + _SEEN + ")().forEach((element, index) => { element.dataset.stop = index; }); }"
_FOCUS = """() => {
  const { activeElement: focused } = document;
  if (focused === document.body) return { stop: null };
  const around = [focused, focused.parentElement, focused.parentElement.parentElement];
  const ring = around.map((one) => getComputedStyle(one))
    .some(({ outlineStyle, boxShadow }) => outlineStyle !== "none" || boxShadow !== "none");
  return { stop: focused.dataset.stop ?? null, ring, tag: focused.outerHTML.slice(0, 120) };
}"""
_UNVISITED = """(visited) => [...document.querySelectorAll("[data-stop]")]
  .filter((element) => !visited.includes(element.dataset.stop))
  .filter((element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
  .filter((element) => element.tabIndex >= 0 && element.role !== "tab" && element.type !== "radio")
  .map((element) => element.outerHTML.slice(0, 160))"""

_LINES_AMONG = """(words) => document.body.innerText.split("\\n").map((line) => line.trim())
  .filter((line) => words.includes(line))"""


def table(language: str) -> dict[str, str]:
    text = resources.files("llama_demo.messages").joinpath(f"{language}.json").read_text(encoding="utf-8")
    words: dict[str, str] = json.loads(text)
    return words


def each_tab(page: Page) -> Iterator[str]:
    """Opens one tab after the other, and each view within it."""
    tabs = page.locator("#tabs > .tab-wrapper [role=tab]")
    expect(tabs).to_have_count(TABS)
    names = tabs.evaluate_all("tabs => tabs.map((tab) => tab.id)")
    for name in names:
        page.locator(f"#{name}").press("Enter")
        expect(page.locator(f"#{name}")).to_have_attribute("aria-selected", "true")
        page.wait_for_load_state("networkidle")
        yield name
        views = page.locator("#tabs > .tabitem [role=tab]:not([aria-selected=true]):visible")
        for view in views.evaluate_all("views => views.map((view) => view.textContent.trim())"):
            page.locator("#tabs > .tabitem [role=tab]:visible").filter(has_text=view).click()
            yield f"{name}: {view}"


@pytest.mark.parametrize(
    ("language", "scheme"),
    [
        ("en", "light"),
        pytest.param("en", "dark", marks=pytest.mark.slow),
        pytest.param("ko", "light", marks=pytest.mark.slow),
        ("ko", "dark"),
    ],
)
def test_axe_finds_nothing_serious(browser: Browser, served: Served, language: str, scheme: Any) -> None:
    with watched_context(browser, locale=LOCALES[language], color_scheme=scheme) as context:
        page = ChatPage(context.new_page(), served.address).page
        expect(page.locator("html")).to_have_attribute("lang", language)
        found = []
        for name in each_tab(page):
            report = Axe().run(page).response
            found += [
                f"{name}: {violation['id']}: {node['html'][:150]} {node['failureSummary'][:250]}"
                for violation in report["violations"]
                if violation["impact"] in SERIOUS
                for node in violation["nodes"]
            ]
        assert not found, "\n".join(found)


def choose_language(page: Page, name: str) -> None:
    page.locator("#language input").click()
    page.get_by_role("option", name=name).click()


def test_the_language_is_the_browser_s_until_another_is_chosen_and_then_that_one(
    browser: Browser, served: Served
) -> None:
    english, korean = table("en"), table("ko")
    differ = {key for key, text in english.items() if "{" not in text and len(text) > 3 and text != korean[key]}

    def strange(page: Page, words: dict[str, str]) -> list[str]:
        """Lines of the page in the language that it should not speak."""
        return wrong_with(page, _LINES_AMONG, [words[key] for key in differ])

    with watched_context(browser, locale="ko-KR") as context:
        chat = ChatPage(context.new_page(), served.address)
        chat.box.fill("Hello")
        expect(chat.page.locator("html")).to_have_attribute("lang", "ko")
        for name in each_tab(chat.page):
            assert strange(chat.page, english) == [], name
        choose_language(chat.page, "English")
        expect(chat.page.locator("html")).to_have_attribute("lang", "en")
        for name in each_tab(chat.page):
            assert strange(chat.page, korean) == [], name
        expect(chat.box).to_have_value("Hello")
        chat.reload()
        expect(chat.page.locator("html")).to_have_attribute("lang", "en")
        for name in each_tab(chat.page):
            assert strange(chat.page, korean) == [], name


def test_errors_and_figures_are_in_the_visitor_s_language(browser: Browser, served: Served) -> None:
    with watched_context(browser, locale="ko-KR") as context:
        chat = ChatPage(context.new_page(), served.address)
        chat.send("   ")
        expect(chat.page.locator("#chat-error")).to_have_text(table("ko")["error.EmptyMessage"])
        chat.box.fill("")
        chat.greedy(4)
        chat.ask("What colour is grass?")
        assert "길이 제한에서 잘림" in chat.conversation
        text = TextPage.beside(chat)
        text.greedy(4)
        text.box.fill("Once upon a time")
        text.go()
        figures = text.page.locator("#text-stats")
        expect(figures).to_contain_text("4토큰")
        choose_language(text.page, "English")
        expect(figures).to_have_text(
            re.compile(r"[\d.]+ s to the first token · \d+ tokens/s · 4 tokens · seed \d+ · cut at")
        )
        text.page.click("#chat-tab-button")
        expect(text.page.locator("#conversation")).to_contain_text("4 tokens · cut at the length limit · prompt")
        expect(text.page.locator("#chat-used")).to_contain_text(re.compile(r"context \d+ of \d+ tokens"))
        assert "토큰" not in chat.conversation


def test_every_control_is_reached_by_keyboard_and_shows_that_it_is(browser: Browser, served: Served) -> None:
    with watched_context(browser) as context:
        page = ChatPage(context.new_page(), served.address).page
        for name in each_tab(page):
            page.evaluate(_MARK)
            page.locator(f"#{name.partition(':')[0]}").focus()
            visited, blind = set(), []
            for _ in range(120):
                page.keyboard.press("Tab")
                focus = page.evaluate(_FOCUS)
                if focus["stop"] is None:
                    continue
                if focus["stop"] in visited:
                    break
                visited.add(focus["stop"])
                if not focus["ring"]:
                    blind.append(focus["tag"])
            assert blind == [], name
            assert page.evaluate(_UNVISITED, list(visited)) == [], name


def test_nothing_moves_where_motion_is_not_wanted(browser: Browser, served: Served) -> None:
    with watched_context(browser, reduced_motion="reduce") as context:
        page = ChatPage(context.new_page(), served.address).page
        for name in each_tab(page):
            moving = page.evaluate(
                "document.getAnimations().filter(({ playState }) => playState === 'running').map(String)"
            )
            assert moving == [], name

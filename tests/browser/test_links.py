"""Links that carry a tab, a model and a prompt, in a real Chromium."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served
from tests.browser.text_page import TextPage

PROMPT = "Who wrote Hamlet? 50 % & more"


def test_a_link_opens_its_tab_with_its_prompt_and_sends_nothing(context: BrowserContext, served: Served) -> None:
    text = TextPage(context.new_page(), served.address)
    text.box.fill("My own beginning")
    text.page.goto(f"{served.address}/?tab=text&model=smollm2-135m-instruct&prompt=Once%20upon&__theme=dark")
    expect(text.box).to_have_value("Once upon")
    expect(text.branches.filter(has_text="My own")).to_have_count(1)
    assert "prompt" not in text.page.url
    text.page.reload()
    expect(text.page.locator("#message textarea")).to_be_visible()


def test_a_link_s_prompt_is_in_sight_though_tokens_were(context: BrowserContext, served: Served) -> None:
    text = TextPage(context.new_page(), served.address)
    text.box.fill("My own beginning")
    text.read_tokens()
    text.page.goto(f"{served.address}/?tab=text&prompt=Once%20upon")
    expect(text.box).to_have_value("Once upon")
    expect(text.box).to_be_visible()
    text.wait_until_idle()
    text.read_tokens()
    assert text.token_text() == "Once upon"


def test_a_copied_link_carries_tab_model_and_text_but_no_secret_of_the_address(
    context: BrowserContext, served: Served
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.address)
    chat = ChatPage(context.new_page(), f"{served.address}/?__sign=secret&lang=en#token=secret")
    chat.box.fill(PROMPT)
    chat.page.click("#copy-link")
    expect(chat.page.locator("#link-note")).to_contain_text("copied")
    link = chat.page.evaluate("navigator.clipboard.readText()")
    assert parse_qs(urlsplit(link).query) == {
        "tab": ["chat"],
        "model": ["smollm2-135m-instruct"],
        "prompt": [PROMPT],
    }
    assert "secret" not in link
    other = ChatPage(context.new_page(), link)
    expect(other.box).to_have_value(PROMPT)
    other.box.fill("x" * 5000)
    other.page.click("#copy-link")
    expect(other.page.locator("#link-note")).to_contain_text("too long")


def test_a_link_to_what_is_not_here_says_so_and_the_page_goes_on(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), f"{served.address}/?tab=constructor&model=%3Cb%3Enone&prompt=Hello")
    expect(chat.page.locator("#chat-error")).to_contain_text("<b>none, which is not offered here")
    expect(chat.page.locator("#chat-tab-button")).to_have_attribute("aria-selected", "true")
    chat.greedy(4)
    assert chat.ask("What colour is grass?")

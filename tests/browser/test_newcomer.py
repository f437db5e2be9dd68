"""The way of somebody who has never been here, in one browser from an empty profile: through every tab, and back."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from llama_demo.ui.classify_train import sample
from tests.browser.chat_page import ChatPage
from tests.browser.classify_page import ClassifyPage
from tests.browser.conftest import Served
from tests.browser.text_page import TextPage

QUESTION = "What is the capital of South Korea?"
LONG = "Write a very long story about a dog called Biscuit who walks from Seoul to Busan."
BEGINNING = "Once upon a time there was a lighthouse keeper who"
LINE = "Do you know when the museum opens?"
LOAD_MILLISECONDS = 120_000


@pytest.mark.slow
def test_a_newcomer_goes_through_every_tab_and_finds_it_all_again_after_a_reload(
    context: BrowserContext, served: Served
) -> None:
    chat = ChatPage(context.new_page(), served.address)
    page = chat.page

    assert chat.ask(QUESTION)
    chat.send(LONG)
    expect(page.locator("#conversation .user-row")).to_have_count(2)
    chat.wait_for_text(40)
    page.click("#stop")
    chat.wait_until_idle()
    assert "stopped" in chat.conversation
    said = [turn["content"] for turn in chat.stored()[0]["turns"]]
    assert len(said) == 4

    text = TextPage.beside(chat)
    text.set_number("max-new-tokens", 24)
    text.box.fill(BEGINNING)
    text.go()
    text.read_tokens()
    text.page.locator("#tokens .new").nth(3).click()
    page.locator("#token-alternatives button:not(.own)").first.click()
    expect(text.branches).to_have_count(2, timeout=LOAD_MILLISECONDS)
    text.wait_for_tokens()
    branched = text.text
    assert branched.startswith(BEGINNING)

    classify = ClassifyPage.beside(chat)
    expect(classify.train(sample(), "newcomer").locator(".figures")).to_be_visible()
    verdict = classify.classify(LINE, "newcomer")
    assert next(iter(verdict)) == "question"

    page.click("#models-tab-button")
    page.locator('.model-card[data-key="smollm2-135m-instruct"]').get_by_role("button", name="Sheet").click()
    expect(page.locator(".sheet .total")).to_contain_text("134", timeout=LOAD_MILLISECONDS)
    page.keyboard.press("Escape")

    page.locator("#language input").click()
    page.get_by_role("option", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")

    chat.reload()
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    assert [turn["content"] for turn in chat.stored()[0]["turns"]] == said
    for content in said[::2]:
        expect(page.locator("#conversation")).to_contain_text(content)
    text.turn()
    expect(text.box).to_have_value(branched)
    expect(text.branches).to_have_count(2)
    classify.turn()
    expect(page.locator("#classify-text textarea")).to_have_value(LINE)
    assert classify.classify(LINE, "newcomer") == verdict

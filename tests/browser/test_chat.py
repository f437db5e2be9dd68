"""The chat in a real Chromium, on the real model."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, BrowserContext, Route, expect

from llama_demo import prompts
from llama_demo.detokenize import PieceStream
from llama_demo.values import Sampling, Turn
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Inside, Served, watched_context
from tests.waiting import happens_within

PROMPTS = (
    "What is the capital of South Korea?",
    "Write one sentence about the sea.",
    "What is two plus three?",
    "Why do birds sing?",
    "Say hello in French.",
    "What colour is grass?",
    "Tell me a fact about the moon.",
    "Who wrote Hamlet?",
    "Give me a name for a cat.",
)
"""Answered in prose: of a numbered list the page shows the numbers outside the text that a browser reads."""
LENGTH = 40
LONG = "Write a very long story about a dog called Biscuit who walks from Seoul to Busan."
TOO_LONG = "x" * 150_000
REPLIES = "**/queue/join**"
"""Where the page asks for a reply."""


def test_the_capital_of_south_korea_streams_in_and_is_seoul(chat: ChatPage) -> None:
    chat.greedy(LENGTH)
    chat.collect_steps()
    assert "Seoul" in chat.ask("What is the capital of South Korea?")
    steps = chat.steps()
    assert len(steps) > 1
    assert all(later.startswith(earlier[:8]) for earlier, later in pairwise(steps))


def test_the_page_shows_exactly_the_engine_s_own_greedy_text(watched_chat: ChatPage, inside: Inside) -> None:
    seed = random.randrange(10**6)
    print(f"prompts drawn with seed {seed}")  # noqa: T201
    watched_chat.greedy(LENGTH)
    for prompt in random.Random(seed).sample(PROMPTS, 3):
        watched_chat.page.click("#new-conversation")
        shown = watched_chat.ask(prompt)
        assert watched_chat.last_turn()["content"] == engine_text(inside, prompt)
        assert shown.split()[:3] == engine_text(inside, prompt).split()[:3]


def engine_text(inside: Inside, prompt: str) -> str:
    """What the engine says when it is asked directly, without page, queue or generation."""
    with inside.runtime.registry.lease(inside.runtime.default_model) as loaded:
        rendered = prompts.render(loaded.tokenizer, [Turn("user", prompt)])
        tokens = list(loaded.engine.generate(rendered.ids, Sampling(max_new_tokens=LENGTH, temperature=0.0)))
        return PieceStream(loaded.tokenizer).add([token.id for token in tokens])


def test_stop_freezes_the_text_and_ends_the_engine_s_steps(watched_chat: ChatPage, inside: Inside) -> None:
    watched_chat.set_number("max-new-tokens", 2000)
    watched_chat.send(LONG)
    watched_chat.wait_for_text(40)
    stream = inside.streams[-1]
    watched_chat.page.click("#stop")
    frozen = watched_chat.reply_so_far()
    watched_chat.wait_until_idle()
    steps = stream.steps
    watched_chat.page.wait_for_timeout(1500)
    assert watched_chat.reply_so_far() == frozen
    assert stream.steps == steps
    assert stream.finish_reason == "cancelled"
    assert "stopped" in watched_chat.conversation


def test_closing_the_tab_ends_the_work_within_a_second(watched_chat: ChatPage, inside: Inside) -> None:
    watched_chat.set_number("max-new-tokens", 2000)
    watched_chat.send(LONG)
    watched_chat.wait_for_text(20)
    stream = inside.streams[-1]
    assert not stream.ended
    watched_chat.page.close()
    assert happens_within(1.0, lambda: stream.ended)
    assert stream.finish_reason == "cancelled"


def test_retry_asks_the_same_question_again(chat: ChatPage) -> None:
    chat.set_number("max-new-tokens", 30)
    chat.set_number("temperature", 1.5)
    first = chat.ask("Tell me a story.")
    chat.page.click("#conversation button[aria-label=Retry]")
    chat.page.wait_for_selector("body.chat-busy")
    second = chat.whole_reply()
    assert second != first
    turns = chat.stored()[0]["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"] == "Tell me a story."


@pytest.mark.parametrize("again", ["#continue", "#conversation button[aria-label=Retry]"])
def test_a_reply_asked_again_and_left_before_its_first_word_is_as_it_was(chat: ChatPage, again: str) -> None:
    chat.greedy(8)
    chat.ask("Name the days of the week.")
    before = chat.last_turn()
    chat.set_number("max-new-tokens", 20)
    chat.page.route(REPLIES, lambda _: None)
    chat.page.click(again)
    chat.page.wait_for_selector("body.chat-busy")
    chat.page.click("#new-conversation")
    chat.wait_until_idle()
    assert chat.last_turn() == before


def test_an_edited_message_is_answered_anew_and_what_followed_it_goes(chat: ChatPage) -> None:
    chat.greedy(LENGTH)
    chat.ask("What is the capital of France?")
    chat.ask("And how many people live there?")
    chat.page.locator("#conversation .user-row").first.get_by_role("button", name="Edit").click()
    chat.page.fill("#conversation .user-row textarea", "What is the capital of South Korea?")
    chat.page.locator("#conversation .user-row").first.get_by_role("button", name="Submit").click()
    chat.page.wait_for_selector("body.chat-busy")
    assert "Seoul" in chat.whole_reply()
    turns = chat.stored()[0]["turns"]
    assert [turn["content"] for turn in turns if turn["role"] == "user"] == ["What is the capital of South Korea?"]


def test_undo_takes_the_last_exchange_back_into_the_box(chat: ChatPage) -> None:
    chat.greedy(10)
    chat.ask("What colour is grass?")
    chat.ask("Who wrote Hamlet?")
    chat.page.click("#conversation button[aria-label=Undo]")
    expect(chat.box).to_have_value("Who wrote Hamlet?")
    assert [turn["content"] for turn in chat.stored()[0]["turns"] if turn["role"] == "user"] == [
        "What colour is grass?"
    ]


def test_a_reply_cut_at_its_length_goes_on(chat: ChatPage) -> None:
    chat.greedy(8)
    cut = chat.ask("Name the days of the week.")
    assert "cut at the length limit" in chat.conversation
    chat.set_number("max-new-tokens", 20)
    chat.page.click("#continue")
    chat.page.wait_for_selector("body.chat-busy")
    whole = chat.whole_reply()
    assert whole.startswith(cut[:10])
    assert len(whole) > len(cut)
    assert [turn["role"] for turn in chat.stored()[0]["turns"]] == ["user", "assistant"]


def test_the_figures_of_a_continued_reply_are_of_the_whole_and_not_of_what_is_being_written(chat: ChatPage) -> None:
    figures = chat.page.locator("#conversation .thought-group")
    chat.greedy(6)
    reply = chat.ask("Write a story.")
    expect(figures).to_contain_text("6 tokens")
    chat.set_number("max-new-tokens", 2000)
    chat.page.click("#continue")
    expect(figures).to_have_count(0)
    chat.wait_for_text(len(reply) + 20)
    chat.page.click("#stop")
    chat.wait_until_idle()
    written = chat.last_turn()["figures"]["written"]
    assert written > 6
    expect(figures).to_contain_text(f"{written} tokens · stopped")


def test_a_continue_that_is_refused_leaves_the_reply_as_it_was(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.ask("Name the days of the week.")
    before = chat.last_turn()
    chat.page.fill("#system-prompt textarea", TOO_LONG)
    chat.page.click("#continue")
    expect(chat.page.locator("#chat-error")).not_to_be_empty()
    assert chat.last_turn() == before
    assert "cut at the length limit" in chat.conversation


def test_the_exact_prompt_is_one_click_away(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.page.fill("#system-prompt textarea", "You are a pirate.")
    chat.ask("Who are you?")
    assert "You are a pirate." not in chat.conversation
    chat.page.click("#conversation .thought-group .title")
    expect(chat.page.locator("#conversation .thought-group")).to_contain_text("<|im_start|>system")
    expect(chat.page.locator("#conversation .thought-group")).to_contain_text("You are a pirate.")


def test_nothing_moves_while_the_next_reply_comes(chat: ChatPage) -> None:
    rows = "document.querySelectorAll('#conversation .message-row')"
    heights = f"[...{rows}].slice(0, 2).map((row) => row.offsetHeight)"
    chat.greedy(8)
    chat.ask("Who are you?")
    before = chat.page.evaluate(heights)
    chat.set_number("max-new-tokens", 400)
    chat.send(LONG)
    chat.wait_for_text(40)
    assert chat.page.evaluate(heights) == before
    chat.page.click("#stop")
    chat.wait_until_idle()
    assert chat.page.evaluate(heights) == before


def test_figures_and_context_are_shown_under_the_reply(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.ask("Who are you?")
    assert "s to the first token" in chat.conversation
    assert "8 tokens" in chat.conversation
    assert chat.page.locator("#chat-meter").is_visible()
    used, room = (int(word) for word in chat.page.inner_text("#chat-used").split() if word.isdigit())
    assert 8 < used < room


def test_a_reload_and_a_restart_find_the_conversation(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), served.address)
    chat.greedy(LENGTH)
    chat.page.fill("#system-prompt textarea", "Answer in one word.")
    reply = chat.ask("What is the capital of South Korea?")
    chat.reload()
    expect(chat.page.locator("#conversation")).to_contain_text("What is the capital of South Korea?")
    assert chat.reply_so_far() == reply
    expect(chat.page.locator("#system-prompt textarea")).to_have_value("Answer in one word.")
    chat.page.goto("about:blank")
    served.stop()
    served.start()
    chat.open()
    expect(chat.page.locator("#conversation")).to_contain_text("What is the capital of South Korea?")
    assert chat.reply_so_far() == reply
    chat.ask("Are you sure?")
    assert len(chat.stored()[0]["turns"]) == 4


def test_a_server_that_goes_away_is_noticed_and_the_page_goes_on_when_it_is_back(
    browser: Browser, served: Served
) -> None:
    with watched_context(browser, server_stops=True) as context:
        chat = ChatPage(context.new_page(), served.address)
        chat.set_number("max-new-tokens", 2000)
        chat.send(LONG)
        chat.wait_for_text(20)
        served.stop(hard=True)
        chat.wait_until_idle()
        assert "connection to the server was lost" in chat.error
        so_far = chat.last_turn()["content"]
        assert so_far
        with chat.page.expect_navigation(timeout=60_000):
            served.start()  # the page finds it by itself, and comes anew
        chat.loaded()
        expect(chat.page.locator("#conversation")).to_contain_text(so_far.split()[0])
        chat.set_number("max-new-tokens", 8)
        assert chat.ask("Are you back?")
        assert [turn["content"] for turn in chat.stored()[0]["turns"][:3]] == [LONG, so_far, "Are you back?"]


def test_a_change_of_the_model_is_marked_in_the_conversation(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.ask("What colour is grass?")
    assert "From here on" not in chat.conversation
    stored = chat.stored()[0]
    stored["turns"][1]["model"] = "another"
    chat.page.evaluate("c => localStorage.setItem('llama-demo.conversation.' + c.id, JSON.stringify(c))", stored)
    chat.reload()
    chat.ask("And the sky?")
    assert "From here on SmolLM2 135M answers." in chat.conversation
    assert chat.conversation.count("From here on") == 1


def test_earlier_conversations_are_one_click_away(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.ask("What colour is grass?")
    chat.page.click("#new-conversation")
    chat.ask("Who wrote Hamlet?")
    listed = chat.page.locator("#conversation-list .title")
    assert listed.all_inner_texts() == ["Who wrote Hamlet?", "What colour is grass?"]
    listed.nth(1).click()
    expect(chat.page.locator("#conversation")).to_contain_text("What colour is grass?")
    expect(chat.page.locator("#conversation")).not_to_contain_text("Hamlet")


def test_the_open_conversation_clicked_in_mid_reply_stays_and_goes_on(chat: ChatPage) -> None:
    chat.greedy(8)
    chat.ask("What colour is grass?")
    chat.set_number("max-new-tokens", 2000)
    chat.send(LONG)
    chat.wait_for_text(20)
    chat.page.click("#conversation-list [aria-current]")
    chat.wait_for_text(len(chat.reply_so_far()) + 40)
    chat.page.click("#stop")
    chat.wait_until_idle()
    assert [turn["content"] for turn in chat.stored()[0]["turns"][::2]] == ["What colour is grass?", LONG]


@pytest.mark.parametrize("text", ["   ", TOO_LONG])
def test_bad_input_is_said_in_place_and_the_text_stays(chat: ChatPage, text: str) -> None:
    chat.send(text)
    expect(chat.page.locator("#chat-error")).not_to_be_empty()
    expect(chat.box).to_have_value(text)
    assert chat.error.count("\n") == 0
    assert not chat.stored()


def test_a_message_that_is_refused_comes_back_before_what_was_typed_since(chat: ChatPage) -> None:
    def type_meanwhile(route: Route) -> None:
        expect(chat.box).to_have_value("")
        chat.box.fill("And then?")
        route.continue_()

    chat.page.route(REPLIES, type_meanwhile)
    chat.send(TOO_LONG)
    expect(chat.box).to_have_value(f"{TOO_LONG}\n\nAnd then?")


def test_a_message_without_a_reply_is_in_the_box_after_a_reload(chat: ChatPage) -> None:
    chat.page.route(REPLIES, lambda _: None)
    chat.send(LONG)
    chat.page.wait_for_selector("body.chat-busy")
    expect(chat.box).to_have_value("")
    chat.box.fill("And then?")
    for _ in range(2):
        chat.reload()
        expect(chat.box).to_have_value(f"{LONG}\n\nAnd then?")
        assert chat.page.evaluate("sessionStorage['llama-demo.draft']") is None
    assert not chat.stored()


def test_the_late_end_of_a_reply_that_was_left_leaves_the_next_one_alone(chat: ChatPage) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    chat.greedy(LENGTH)
    chat.page.route(REPLIES, hold)
    with chat.page.expect_request(REPLIES):
        chat.send(TOO_LONG)
    chat.page.click("#new-conversation")
    chat.wait_until_idle()
    with chat.page.expect_request(REPLIES):
        chat.page.locator("#examples button").first.click()
    chat.page.evaluate(
        """() => {
          const { ended } = window.llamaDemo;
          window.firstEnd = new Promise((come) => (window.llamaDemo.ended = () => come(ended())));
        }"""
    )
    held[0].continue_()
    chat.page.evaluate("() => window.firstEnd")
    expect(chat.page.locator("body.chat-busy")).to_be_visible()
    held[1].continue_()
    assert chat.whole_reply()
    assert not chat.error


def test_hostile_markup_is_shown_as_text_and_does_not_run(chat: ChatPage) -> None:
    hostile = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> <b>bold</b> ![p](http://example.com/p.png)'
    chat.greedy(8)
    chat.ask(hostile)
    stored = chat.stored()[0]
    stored["turns"][1]["content"] = hostile
    chat.page.evaluate("c => localStorage.setItem('llama-demo.conversation.' + c.id, JSON.stringify(c))", stored)
    chat.reload()
    expect(chat.page.locator("#conversation .bot-row").first).to_contain_text("onerror")
    assert chat.page.evaluate("window.hacked") is None
    assert chat.page.locator("#conversation .md img, #conversation .md script, #conversation .md b").count() == 0
    chat.page.locator("#conversation .user-row").get_by_role("button", name="Edit").click()
    chat.page.locator("#conversation .user-row").get_by_role("button", name="Submit").click()
    assert chat.stored()[0]["turns"][0]["content"] == hostile


def test_the_keyboard_alone_is_enough(chat: ChatPage) -> None:
    keyboard = chat.page.keyboard
    expect(chat.box).to_be_focused()
    keyboard.type("Write a very long story")
    keyboard.press("Shift+Enter")
    keyboard.type("about a dog.")
    assert chat.box.input_value() == "Write a very long story\nabout a dog."
    keyboard.press("Enter")
    chat.wait_for_text(20)
    keyboard.press("Escape")
    chat.wait_until_idle()
    assert "stopped" in chat.conversation
    for _ in range(40):
        keyboard.press("Shift+Tab")
        if chat.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Retry":
            break
    assert chat.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keyboard.press("Enter")
    chat.page.wait_for_selector("body.chat-busy")
    keyboard.press("Escape")
    chat.wait_until_idle()


@pytest.mark.parametrize("broken", ["setItem", "getItem"])
def test_a_browser_without_storage_still_chats(browser: Browser, served: Served, broken: str) -> None:
    with watched_context(browser) as context:
        context.add_init_script(
            f"Storage.prototype.{broken} = () => {{ throw new DOMException('no', 'QuotaExceededError') }}"
        )
        chat = ChatPage(context.new_page(), served.address)
        chat.greedy(8)
        assert chat.ask("What colour is grass?")
        if broken == "setItem":
            assert "storage is full or turned off" in chat.error
        assert chat.page.locator("#conversation-list .title").count() == 1

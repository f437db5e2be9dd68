"""The text tab in a real Chromium, on the real model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from llama_demo.detokenize import PieceStream
from llama_demo.values import Sampling
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Inside, Served, watched_context
from tests.browser.tab_page import wrong_with
from tests.browser.test_layout import TOO_WIDE, WIDER
from tests.browser.text_page import TextPage

PROMPT = "The capital of South Korea is"
STORY = "Once upon a time there was a lighthouse keeper who"
_CLOCK = """() => {
  const parse = JSON.parse;
  const painted = (then) => requestAnimationFrame(() => setTimeout(then));
  window.took = {};
  window.timed = (name, action) => new Promise((resolve) => {
    const begun = performance.now();
    action();
    painted(() => resolve((window.took[name] = performance.now() - begun)));
  });
  JSON.parse = (text, ...rest) => {
    if (text?.length > 100000) {
      const begun = performance.now();
      painted(() => (window.took.open = performance.now() - begun));
    }
    return parse(text, ...rest);
  };
}"""


@pytest.fixture
def text(context: BrowserContext, served: Served) -> TextPage:
    """The served app's text tab, in a fresh profile."""
    return TextPage(context.new_page(), served.address)


def test_the_continuation_is_the_engine_s_own_and_is_marked(context: BrowserContext, inside: Inside) -> None:
    text = TextPage(context.new_page(), inside.address)
    text.greedy(24)
    text.box.fill(PROMPT)
    text.go()
    with inside.runtime.registry.lease(inside.runtime.default_model) as loaded:
        ids = loaded.tokenizer.encode_text(PROMPT)
        made = [token.id for token in loaded.engine.generate(ids, Sampling(max_new_tokens=24, temperature=0.0))]
        expected = PieceStream(loaded.tokenizer, after=ids).add(made)
    assert text.text == PROMPT + expected
    assert text.new_part == expected
    assert "Seoul" in text.new_part


def test_a_second_alternative_becomes_a_branch_that_goes_on_and_the_old_one_is_a_click_away(text: TextPage) -> None:
    text.greedy(16)
    text.box.fill(PROMPT)
    text.go()
    first = text.text
    text.read_tokens()
    assert text.token_text() == first
    tokens = text.tokens.all_text_contents()
    place = tokens.index(" Seoul") if " Seoul" in tokens else len(tokens) - 8
    text.tokens.nth(place).click()
    expect(text.page.locator("#token-details")).to_contain_text("log-probability")
    expect(text.alternatives).to_have_count(8)
    second = text.page.locator("#token-alternatives button:not(.own)").first
    token = second.locator("span").first.text_content() or ""
    second.click()
    expect(text.branches).to_have_count(2, timeout=60_000)
    text.wait_for_tokens()
    branched = text.text
    kept = "".join(tokens[:place])
    assert branched.startswith(kept + token.replace("␣", " ").replace("⏎", "\n"))
    assert len(branched) > len(kept) + len(token) + 8
    assert branched != first
    assert text.token_text() == branched
    assert text.new_part == branched[len(kept) :]
    text.branches.first.click()
    text.wait_for_tokens()
    assert text.text == first
    text.branches.nth(1).click()
    text.wait_for_tokens()
    assert text.text == branched


def test_stop_keeps_what_came(text: TextPage) -> None:
    text.set_number("max-new-tokens", 2000)
    text.box.fill(STORY)
    text.start()
    text.page.wait_for_function(
        "count => document.querySelector('#text-box').value.length > count", arg=len(STORY) + 40
    )
    text.page.click("#text-stop")
    text.wait_until_idle()
    frozen = text.text
    text.page.wait_for_timeout(1000)
    assert text.text == frozen
    assert frozen.startswith(STORY)
    expect(text.page.locator("#text-stats")).to_contain_text("stopped")


def test_a_comparison_streams_raw_text_and_the_template_side_by_side(text: TextPage) -> None:
    text.greedy(40)
    text.box.fill(PROMPT)
    text.view("compare")
    sides = text.page.locator("#compare-view .card")
    expect(sides).to_have_count(2)
    for index in range(2):
        heat = sides.nth(index).locator("input[type=number]")
        heat.fill("0")
        heat.press("Tab")
    text.start()
    text.page.wait_for_function(
        "() => [...document.querySelectorAll('#compare-view .card-text')].every((side) => side.textContent)"
    )
    text.wait_until_idle()
    expect(sides.nth(1).locator(".card-text")).to_contain_text("Seoul")
    for index in range(2):
        expect(sides.nth(index)).to_contain_text("tokens/s")
    assert sides.nth(0).locator(".card-text").text_content() != sides.nth(1).locator(".card-text").text_content()
    reply = sides.nth(1).locator(".card-text").text_content() or ""
    sides.nth(1).get_by_role("button", name="Take this one").click()
    assert text.text == f"{PROMPT}\n\n{reply}"
    assert text.new_part == reply


def test_a_side_is_taken_with_what_it_was_asked(text: TextPage) -> None:
    text.greedy(8)
    text.box.fill(PROMPT)
    text.view("compare")
    text.go()
    side = text.page.locator("#compare-view .card").first
    written = side.locator(".card-text").text_content() or ""
    text.box.fill("The capital of Spain is")
    side.locator("select").nth(1).select_option("chat")
    side.get_by_role("button", name="Take this one").click()
    assert text.text == PROMPT + written
    expect(text.page.locator("#text-mode input[value=raw]")).to_be_checked()
    expect(text.branches.filter(has_text="Spain")).to_have_count(1)


def test_alternatives_come_side_by_side_and_one_is_taken_by_a_click(text: TextPage) -> None:
    text.set_number("n", 3)
    text.set_number("temperature", 1.2)
    text.set_number("max-new-tokens", 16)
    text.box.fill(STORY)
    text.go()
    cards = text.page.locator("#text-cards .card")
    expect(cards).to_have_count(3)
    texts = text.page.locator("#text-cards .card-text").all_text_contents()
    assert len(set(texts)) > 1
    assert text.text == STORY
    cards.nth(1).get_by_role("button").click()
    assert text.text == STORY + texts[1]
    expect(text.branches).to_have_count(3)
    text.branches.nth(2).click()
    assert text.text == STORY + texts[2]


def test_undo_regenerate_and_going_on(text: TextPage) -> None:
    text.set_number("max-new-tokens", 12)
    text.set_number("temperature", 1.5)
    text.box.fill(STORY)
    text.go()
    first = text.text
    text.go(button="#text-again")
    second = text.text
    assert second.startswith(STORY)
    assert second != first
    text.go()
    longer = text.text
    assert longer.startswith(second)
    assert text.new_part == longer[len(second) :]
    text.page.click("#text-undo")
    assert text.text == second
    text.page.click("#text-undo")
    assert text.text == first
    text.page.click("#text-undo")
    assert text.text == STORY
    expect(text.branches).to_have_count(3)


def test_a_seed_repeats_its_text(context: BrowserContext, inside: Inside) -> None:
    text = TextPage(context.new_page(), inside.address)
    text.set_number("max-new-tokens", 12)
    text.set_number("temperature", 1.2)
    text.page.fill("#text-seed input", "5")
    text.box.fill(STORY)
    made = []
    for _ in range(2):
        text.go()
        expect(text.page.locator("#text-stats")).to_contain_text("seed 5")
        made.append(text.text)
        text.page.click("#text-undo")
        assert text.text == STORY
    assert made[0] == made[1] != STORY


def test_taking_an_alternative_while_it_is_written_stops_the_others(text: TextPage) -> None:
    text.set_number("n", 2)
    text.set_number("max-new-tokens", 2000)
    text.box.fill(STORY)
    text.start()
    text.page.wait_for_function("() => document.querySelector('#text-cards .card-text')?.textContent.length > 30")
    so_far = text.page.locator("#text-cards .card-text").first.text_content() or ""
    text.page.locator("#text-cards .card button").first.click()
    text.wait_until_idle()
    assert text.text.startswith(STORY + so_far)
    expect(text.branches).to_have_count(2)


_LONGER = "(length) => document.querySelector('#text-box').value.length > length"
_CARDS_LONGER = """(length) => {
  const texts = [...document.querySelectorAll(".card-text")].map((card) => card.textContent);
  return texts.length === 2 && texts.every((text) => text.length > length);
}"""


def test_a_text_that_broke_off_stays_and_goes_on_when_the_server_is_back(browser: Browser, served: Served) -> None:
    with watched_context(browser, server_stops=True) as context:
        text = TextPage(context.new_page(), served.address)
        text.set_number("max-new-tokens", 2000)
        text.box.fill(STORY)
        text.start()
        text.page.wait_for_function(_LONGER, arg=len(STORY) + 30)
        so_far = text.text
        served.stop(hard=True)
        text.wait_until_idle()
        assert "connection to the server was lost" in text.error
        made = text.text
        assert made.startswith(so_far)
        assert text.new_part == made.removeprefix(STORY)
        with text.page.expect_navigation(timeout=60_000):
            served.start()
        text.loaded()
        assert text.text == made
        text.set_number("max-new-tokens", 8)
        text.go()
        assert text.text.startswith(made)
        assert len(text.text) > len(made)
        text.page.click("#text-undo")
        text.page.click("#text-undo")
        assert text.text == STORY


@pytest.mark.parametrize("view", ["text", "compare"])
def test_sides_that_broke_off_can_be_taken(browser: Browser, served: Served, view: str) -> None:
    with watched_context(browser, server_stops=True) as context:
        text = TextPage(context.new_page(), served.address)
        text.set_number("n", 2)
        text.set_number("max-new-tokens", 2000)
        text.box.fill(STORY)
        text.view(view)
        text.start()
        text.page.wait_for_function(_CARDS_LONGER, arg=30)
        served.stop(hard=True)
        text.wait_until_idle()
        assert "connection to the server was lost" in text.error
        second = text.page.locator(".card-text").nth(1).text_content() or ""
        text.page.get_by_role("button", name="Take this one").nth(1).click()
        assert text.text.startswith(STORY)
        assert text.text.endswith(second)
        served.start()


def test_an_edit_by_an_input_method_leaves_the_box_to_it(text: TextPage) -> None:
    """Hangul comes in several steps; a script that writes into the box in between breaks the syllable."""
    devtools = text.page.context.new_cdp_session(text.page)
    text.box.focus()
    for step in ("ㅎ", "하", "한"):
        devtools.send("Input.imeSetComposition", {"text": step, "selectionStart": 1, "selectionEnd": 1})
    devtools.send("Input.insertText", {"text": "한"})
    assert text.text == "한"
    assert text.stored()["text"] == "한"


def test_in_a_low_window_every_alternative_is_in_reach(text: TextPage) -> None:
    text.page.set_viewport_size({"width": 960, "height": 600})
    text.greedy(8)
    text.box.fill(PROMPT)
    text.go()
    text.read_tokens()
    text.tokens.last.click()
    expect(text.tokens.last).to_be_in_viewport(ratio=1)
    text.alternatives.last.click()
    expect(text.branches).to_have_count(2, timeout=60_000)
    text.wait_for_tokens()


def test_a_long_text_s_tokens_begin_where_the_new_part_does(text: TextPage) -> None:
    text.greedy(8)
    text.box.fill("The boats go out before the sun. " * 60 + PROMPT)
    text.go()
    text.read_tokens()
    expect(text.page.locator("#tokens .new").first).to_be_in_viewport(ratio=1)


def test_the_text_its_branches_and_its_settings_survive_a_reload(text: TextPage) -> None:
    text.greedy(8)
    text.box.fill(PROMPT)
    text.go()
    whole = text.text
    text.stored()
    text.open()
    assert text.text == whole
    assert text.new_part == whole[len(PROMPT) :]
    expect(text.page.locator("#text-max-new-tokens input[type=number]")).to_have_value("8")
    text.box.press("End")
    text.box.type(" And so")
    assert text.stored()["text"].count(" And so") == 1


def test_a_page_where_nothing_was_done_follows_another_one(context: BrowserContext, served: Served) -> None:
    """Also where it has read the tokens of the text that it found."""
    first = TextPage(context.new_page(), served.address)
    first.box.fill(PROMPT)
    first.read_tokens()
    second = TextPage(context.new_page(), served.address)
    second.wait_for_tokens()
    first.view("text")
    first.box.fill(STORY)
    expect(second.box).to_have_value(STORY)
    expect(second.box).to_be_visible()
    second.reload()
    assert second.text == STORY
    second.box.fill("My own beginning")
    second.page.evaluate("() => { window.heard = new Promise((heard) => addEventListener('storage', heard)) }")
    first.box.fill(PROMPT)
    second.page.evaluate("window.heard.then(() => true)")
    assert second.text == "My own beginning"


def test_a_page_where_nothing_was_done_leaves_what_another_one_wrote(context: BrowserContext, served: Served) -> None:
    first = TextPage(context.new_page(), served.address)
    page = context.new_page()
    page.add_init_script("addEventListener('storage', (event) => event.stopImmediatePropagation())")
    second = TextPage(page, served.address)
    first.box.fill(STORY)
    first.stored()
    second.reload()
    assert second.text == STORY
    first.box.fill(PROMPT)
    first.reload()
    assert first.text == PROMPT


def test_an_edited_prompt_keeps_the_new_part_marked(text: TextPage) -> None:
    text.greedy(8)
    text.box.fill(PROMPT)
    text.go()
    new = text.new_part
    text.box.press("Control+Home")
    text.box.type("Indeed: ")
    assert text.text.startswith("Indeed: The capital")
    assert text.new_part == new


def test_what_is_pasted_over_the_new_part_is_the_visitor_s_own(text: TextPage) -> None:
    text.greedy(8)
    text.box.fill(PROMPT)
    text.go()
    assert text.new_part
    text.box.press("Control+a")
    text.page.keyboard.insert_text("The sun sets over the harbour")
    expect(text.box).to_have_value("The sun sets over the harbour")
    expect(text.page.locator("#text-backdrop mark")).to_have_text("")


def test_an_empty_box_s_suggestion_does_not_look_like_a_text(text: TextPage) -> None:
    color = "(box, pseudo) => getComputedStyle(box, pseudo).color"
    assert text.box.evaluate(color, "::placeholder") != text.box.evaluate(color, None)


def test_stop_strings_end_the_text_before_them(text: TextPage) -> None:
    text.page.get_by_role("button", name="Translation by examples").click()
    text.page.wait_for_function("() => document.querySelector('#text-box').value.includes('French')")
    expect(text.page.locator("#text-stops textarea")).to_have_value("\\n")
    text.go()
    assert "\n" not in text.new_part
    assert text.new_part.strip()


def test_a_text_that_is_too_long_is_said_in_place_and_stays(text: TextPage) -> None:
    long = "word " * 30_000
    text.box.fill(long)
    text.go()
    assert "at most 100000" in text.error
    assert text.text == long
    text.box.fill("word " * 6000)
    text.go()
    assert "the model has room for" in text.error
    text.page.locator("#text-trim input").check()
    text.set_number("max-new-tokens", 4)
    text.go()
    assert text.error == ""
    expect(text.page.locator("#text-stats")).to_contain_text("were left out")


@pytest.mark.parametrize(
    ("button", "stops", "place", "said"),
    [
        ("#text-go", "\n".join(f"stop {number}" for number in range(60)), "#text-error", "stop"),
        ("#text-again", None, "#text-note", "nothing to add"),
    ],
    ids=["refused", "nothing"],
)
def test_what_is_said_in_the_token_view_outlasts_the_reading_that_follows(
    text: TextPage, button: str, stops: str | None, place: str, said: str
) -> None:
    text.greedy(8)
    text.box.fill(PROMPT)
    text.go()
    first_letters = text.new_part[:3]
    text.read_tokens()
    text.page.fill("#text-stops textarea", stops or first_letters)
    text.mark_tokens()
    text.go(button=button)
    text.wait_for_other_tokens()
    expect(text.page.locator(place)).to_contain_text(said)


def test_half_characters_show_their_bytes(text: TextPage) -> None:
    text.box.fill("🦙 서울")
    text.read_tokens()
    shown = text.tokens.all_text_contents()
    assert any(piece.startswith("<0x") for piece in shown)
    assert "".join(piece for piece in shown if not piece.startswith("<0x"))


def test_the_chat_s_last_reply_opens_with_its_prompt_in_the_token_view(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), served.address)
    chat.greedy(20)
    reply = chat.ask("What is the capital of South Korea?")
    chat.page.click("#chat-tokens")
    chat.page.wait_for_selector("#tokens [data-index]", timeout=120_000)
    shown = "".join(chat.page.locator("#tokens [data-index]").all_text_contents())
    assert "<|im_start|>user" in shown
    assert reply in shown
    assert reply in "".join(chat.page.locator("#tokens .new").all_text_contents())


def test_the_chat_s_reply_opens_though_a_text_is_being_written_which_is_kept(
    context: BrowserContext, served: Served
) -> None:
    chat = ChatPage(context.new_page(), served.address)
    chat.greedy(20)
    reply = chat.ask("What is the capital of South Korea?")
    text = TextPage.beside(chat)
    text.set_number("max-new-tokens", 2000)
    text.box.fill(STORY)
    text.start()
    text.page.wait_for_function(_LONGER, arg=len(STORY) + 30)
    text.page.click("#chat-tab-button")
    text.page.click("#chat-tokens")
    expect(text.page.locator("#tokens")).to_contain_text(reply.split()[0], timeout=120_000)
    text.wait_for_tokens()
    assert reply in "".join(text.page.locator("#tokens .new").all_text_contents())
    assert text.error == ""
    assert any(
        branch["text"].startswith(STORY) and len(branch["text"]) > len(STORY) for branch in text.stored()["branches"]
    )


def test_the_view_is_saved_as_json_and_as_csv_without_formulas(text: TextPage, tmp_path: Path) -> None:
    text.box.fill('=1+1, he said "no"\n')
    text.read_tokens()
    for label in ("JSON", "CSV"):
        with text.page.expect_download() as saved:
            text.page.get_by_role("button", name=label).click()
        saved.value.save_as(tmp_path / label)
    tokens = json.loads((tmp_path / "JSON").read_text(encoding="utf-8"))["tokens"]
    assert "".join(token["text"] for token in tokens) == '=1+1, he said "no"\n'
    assert tokens[0]["logprob"] is None
    assert len(tokens[1]["top"]) == 8
    with (tmp_path / "CSV").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [token["id"] for token in tokens]
    assert rows[0]["text"] == "'="
    assert rows[0]["logprob"] == ""
    assert float(rows[1]["logprob"]) < 0


def test_the_keyboard_alone_reads_the_tokens(text: TextPage) -> None:
    text.box.fill(PROMPT)
    text.read_tokens()
    text.tokens.first.focus()
    text.page.keyboard.press("ArrowRight")
    text.page.keyboard.press("ArrowRight")
    expect(text.tokens.nth(2)).to_be_focused()
    expect(text.page.locator("#token-details")).to_contain_text("rank")
    text.page.keyboard.press("End")
    expect(text.tokens.last).to_be_focused()


def test_a_view_of_thousands_of_tokens_stays_quick(text: TextPage) -> None:
    """Prints what it measures: how long opening, scrolling and a click take until the browser has painted."""
    words = " ".join(f"harbour {number} lies below the old town," for number in range(380))
    text.set_number("max-new-tokens", 1)
    text.page.evaluate(_CLOCK)
    text.box.fill(words)
    text.read_tokens()
    count = text.tokens.count()
    text.page.evaluate(
        """async () => {
          const list = document.querySelector("#tokens");
          await timed("scroll", () => (list.scrollTop = list.scrollHeight / 2));
          await timed("click", () => list.children[list.children.length >> 1].click());
          await timed("far click", () => list.children[list.children.length - 1].click());
        }"""
    )
    took = text.page.evaluate("window.took")
    print(f"{count} tokens: " + ", ".join(f"{name} {seconds:.0f} ms" for name, seconds in took.items()))  # noqa: T201
    assert count > 3500
    assert {"open", "scroll", "click", "far click"} <= took.keys()
    assert text.alternatives.count() == 8


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_on_a_phone_nothing_is_cut_off_in_any_view(phone: BrowserContext, served: Served, scheme: str) -> None:
    page = phone.new_page()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    text = TextPage(page, served.address)
    assert cut_off(text) == []
    text.greedy(16)
    text.set_number("n", 2)
    text.box.fill(f"{'w' * 300} {PROMPT}")
    text.go()
    assert cut_off(text) == []
    text.page.locator("#text-cards .card button").first.click()
    text.read_tokens()
    text.tokens.nth(5).click()
    assert cut_off(text) == []
    text.view("compare")
    text.go()
    assert cut_off(text) == []
    text.page.click("#show-text-settings")
    expect(text.page.locator("#text-settings")).to_be_visible()
    assert cut_off(text) == []
    text.page.locator("#text-settings .close").click()
    expect(text.page.locator("#text-settings")).to_be_hidden()


def cut_off(text: TextPage) -> list[str]:
    """What reaches beyond the window; the branches are a row that scrolls."""
    too_wide = TOO_WIDE.replace('"pre, table,', '"pre, table, #text-branches,')
    return [*wrong_with(text.page, too_wide), *wrong_with(text.page, WIDER, "html")]

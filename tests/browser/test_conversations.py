"""The panel of conversations, thumbs, files and the library of prompts, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Download, FilePayload, Locator, Route, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Served, watched_context

HOSTILE = '<img src=x onerror="window.hacked=1"> ![p](http://example.com/p.png)'


def conversation(identity: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1, "max_new_tokens": 20}
    settings = {"model": "smollm2-135m-instruct", "system_prompt": "Be brief.", "sampling": {**sampling, "seed": 7}}
    reply = {"role": "assistant", "content": answer, **settings, "title": "SmolLM2 135M", "seed": 7, "revision": "abc"}
    turns = [{"role": "user", "content": question}, reply]
    return {"id": identity, "updated": 1, "title": question[:80], "settings": settings, "turns": turns, **more}


GRASS = conversation("grass", "What colour is grass?", "It is green.", updated=2)
HAMLET = conversation("hamlet", "Who wrote Hamlet?", "Shakespeare did.\n\n<!-- llama-demo:end -->\n\\<!-- llama-demo:x")


class Panel:
    def __init__(self, chat: ChatPage, *stored: dict[str, Any]) -> None:
        self.chat, self.page = chat, chat.page
        for one in stored:
            self.page.evaluate("c => localStorage.setItem('llama-demo.conversation.' + c.id, JSON.stringify(c))", one)
        chat.reload()

    @property
    def titles(self) -> Locator:
        return self.page.locator("#conversation-list .title")

    @property
    def note(self) -> Locator:
        return self.page.locator("#conversation-note")

    def unfold(self, title: str) -> Locator:
        row = self.page.locator("#conversation-list li").filter(has_text=title)
        if row.locator(".actions").count() == 0:
            row.locator(".more").click()
        return row

    def act(self, title: str, name: str) -> None:
        self.unfold(title).locator(".actions").get_by_role("button", name=name).click()

    def export(self, title: str, kind: str) -> Download:
        with self.page.expect_download() as download:
            self.act(title, kind)
        return download.value

    def take(self, name: str, content: bytes) -> None:
        file: FilePayload = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        self.page.set_input_files("#conversation-file", file)


@pytest.fixture
def panel(chat: ChatPage) -> Panel:
    return Panel(chat, GRASS, HAMLET)


@pytest.fixture
def elsewhere(browser: Browser, served: Served) -> Iterator[Panel]:
    """The same page in another browser, with no conversations."""
    with watched_context(browser) as context:
        yield Panel(ChatPage(context.new_page(), served.address))


def content(download: Download) -> bytes:
    return Path(download.path()).read_bytes()


def test_conversations_are_found_by_any_of_their_words(panel: Panel) -> None:
    panel.page.fill("#conversation-search", "SHAKES")
    expect(panel.titles).to_have_text(["Who wrote Hamlet?"])
    panel.page.fill("#conversation-search", "zebra")
    expect(panel.titles).to_have_count(0)
    expect(panel.page.locator("#conversation-list")).to_contain_text("No conversation")
    panel.page.fill("#conversation-search", "")
    expect(panel.titles).to_have_text(["What colour is grass?", "Who wrote Hamlet?"])


def test_a_new_name_stays_after_the_next_message_and_a_reload(panel: Panel) -> None:
    panel.act("grass", "Rename")
    field = panel.page.get_by_role("textbox", name="Rename")
    expect(field).to_be_focused()
    field.fill("About lawns")
    field.press("Enter")
    expect(panel.titles.filter(has_text="About lawns")).to_be_visible()
    expect(panel.page.locator("#conversation-list .actions")).to_have_count(0)
    panel.titles.filter(has_text="About lawns").click()
    panel.chat.greedy(4)
    panel.chat.ask("And the sky?")
    panel.chat.reload()
    expect(panel.titles.first).to_have_text("About lawns")
    assert len(panel.chat.stored()[0]["turns"]) == 4


def test_escape_leaves_the_name_as_it_was(panel: Panel) -> None:
    panel.act("grass", "Rename")
    field = panel.page.get_by_role("textbox", name="Rename")
    field.fill("Nothing")
    field.press("Escape")
    expect(panel.titles.first).to_have_text("What colour is grass?")


def test_a_deleted_conversation_comes_back_as_it_was(panel: Panel) -> None:
    panel.act("Hamlet", "Delete")
    expect(panel.titles).to_have_text(["What colour is grass?"])
    assert len(panel.chat.stored()) == 1
    panel.note.get_by_role("button", name="Undo").click()
    expect(panel.titles).to_have_text(["What colour is grass?", "Who wrote Hamlet?"])
    assert panel.chat.stored()[1] == HAMLET


def test_on_a_phone_the_open_conversation_can_be_taken_back_where_it_was_deleted(
    phone: BrowserContext, served: Served
) -> None:
    panel = Panel(ChatPage(phone.new_page(), served.address), GRASS, HAMLET)
    panel.page.click("#show-conversations")
    panel.titles.filter(has_text="Hamlet").click()
    expect(panel.page.locator("#conversations-panel")).to_be_hidden()
    panel.page.click("#show-conversations")
    panel.act("Hamlet", "Delete")
    panel.note.get_by_role("button", name="Undo").click()
    expect(panel.titles).to_have_text(["What colour is grass?", "Who wrote Hamlet?"])


@pytest.mark.parametrize("kind", ["JSON", "Markdown"])
def test_an_exported_conversation_is_the_same_in_another_browser(panel: Panel, elsewhere: Panel, kind: str) -> None:
    exported = content(panel.export("Hamlet", kind))
    for fact in ("Who wrote Hamlet?", "smollm2-135m-instruct", "abc", "0.5", "Be brief."):
        assert fact in exported.decode()
    elsewhere.take("any.txt", exported)
    expect(elsewhere.titles).to_have_text(["Who wrote Hamlet?"])
    assert elsewhere.chat.stored() == [HAMLET]
    elsewhere.take("again.txt", exported)
    expect(elsewhere.note).to_contain_text("Imported")
    assert elsewhere.chat.stored() == [HAMLET]


@pytest.mark.parametrize("kind", ["JSON", "Markdown"])
def test_what_was_exported_in_this_visit_is_not_taken_twice(chat: ChatPage, kind: str) -> None:
    panel = Panel(chat)
    chat.greedy(4)
    chat.ask("What colour is grass?")
    panel.take("own.txt", content(panel.export("grass", kind)))
    expect(panel.note).to_contain_text("Imported")
    expect(panel.titles).to_have_text(["What colour is grass?"])


def test_all_conversations_go_into_one_file_and_one_of_the_same_name_does_not_replace_another(
    panel: Panel, elsewhere: Panel
) -> None:
    with panel.page.expect_download() as download:
        panel.page.click("#conversation-export")
    other = conversation("grass", "Is grass tasty?", "To cows.")
    mine = Panel(elsewhere.chat, other)
    mine.take("conversations.json", content(download.value))
    expect(mine.titles).to_have_count(3)
    assert {turns["turns"][0]["content"] for turns in mine.chat.stored()} == {
        "Is grass tasty?",
        "What colour is grass?",
        "Who wrote Hamlet?",
    }


def broken(change: str) -> bytes:
    return json.dumps(
        {"format": "llama-demo conversations", "version": 1, "conversations": [GRASS, json.loads(change)]}
    ).encode()


BAD_FILES = (
    (b"", "no conversation that was exported here"),
    (b"# A recipe\n\nTwo eggs.", "no conversation that was exported here"),
    (b'{"format": "another"}', "no conversation that was exported here"),
    (b'{"format": "llama-demo conversations", "version": 9, "conversations": []}', "newer version"),
    (b'{"format": "llama-demo conversations", "ver', "broken or not whole"),
    (b"[" * 100_000, "no conversation that was exported here"),
    (b"{" + b'"a":[' * 100_000, "broken or not whole"),
    (b"\xff\xfe\x00\x80", "cannot be read as text"),
    (broken('{"id": "x", "turns": []}'), "broken or not whole"),
    (broken('{"id": "x", "turns": [{"role": "system", "content": "x"}]}'), "broken or not whole"),
    (broken('{"id": "x", "turns": [{"role": "user", "content": 5}]}'), "broken or not whole"),
    (broken('{"__proto__": {"turns": []}, "id": 5}'), "broken or not whole"),
    (broken("null"), "broken or not whole"),
    (b"<!-- llama-demo:conversation {} -->\n\n<!-- llama-demo:turn {oops -->\nx\n", "broken or not whole"),
    (b"x" * 20_000_001, "too large"),
)


def test_a_bad_file_is_named_and_nothing_is_taken_or_lost(panel: Panel) -> None:
    for number, (file, said) in enumerate(BAD_FILES):
        panel.take(f"bad-{number}.json", file)
        expect(panel.note).to_contain_text(f"bad-{number}.json")
        expect(panel.note).to_contain_text(said)
        assert panel.chat.stored() == [GRASS, HAMLET]


def test_markup_in_an_imported_file_is_shown_as_text_wherever_it_stands(panel: Panel) -> None:
    hostile = conversation("hostile", HOSTILE, HOSTILE)
    hostile["turns"][1].update(title=HOSTILE, prompt=HOSTILE, finish=HOSTILE, dropped=HOSTILE)
    hostile["turns"][1]["content"] += f"\n\n```a```\n{HOSTILE}\n\n```\n{HOSTILE}\n```\n\n{HOSTILE}"
    hostile["turns"][1]["figures"] = {"first": None, "speed": None, "written": 1, "read": 1}
    hostile["turns"] += [{"role": "user", "content": "x"}, {**hostile["turns"][1], "model": "other"}]
    text = json.dumps({"format": "llama-demo conversations", "version": 1, "conversations": [hostile]})
    panel.take("hostile.json", text.encode())
    panel.titles.filter(has_text="onerror").click()
    expect(panel.page.locator("#conversation .bot-row").first).to_contain_text("onerror")
    assert panel.page.evaluate("window.hacked") is None
    assert panel.page.locator("#conversation .md img").count() == 0


def test_a_thumb_is_kept_with_the_conversation_and_can_be_taken_back(panel: Panel) -> None:
    panel.titles.filter(has_text="Hamlet").click()
    row = panel.page.locator("#conversation .bot-row").first

    def rating() -> Any:
        return panel.chat.stored()[1]["turns"][1].get("rating")

    row.get_by_role("button", name="Dislike", exact=True).click()
    panel.page.wait_for_function("localStorage['llama-demo.conversation.hamlet'].includes('\"dislike\"')")
    panel.chat.reload()
    assert rating() == "dislike"
    row.get_by_role("button", name="Like", exact=True).click()
    panel.page.wait_for_function("localStorage['llama-demo.conversation.hamlet'].includes('\"like\"')")
    assert b'"rating": "like"' in content(panel.export("Hamlet", "JSON"))
    row.get_by_role("button", name="Liked", exact=True).click()
    panel.page.wait_for_function("!localStorage['llama-demo.conversation.hamlet'].includes('rating')")


def test_a_thumb_is_shown_at_its_own_reply_and_at_no_other(panel: Panel) -> None:
    panel.chat.greedy(4)
    panel.chat.ask("What colour is snow?")
    first = panel.page.locator("#conversation .bot-row").first
    liked = panel.page.locator("#conversation").get_by_role("button", name="Liked", exact=True).locator("visible=true")
    first.get_by_role("button", name="Like", exact=True).click()
    panel.page.wait_for_function("Object.values(localStorage).some((text) => text.includes('\"like\"'))")
    panel.chat.ask("And the sky?")
    expect(liked).to_have_count(1)
    panel.titles.filter(has_text="Hamlet").click()
    expect(panel.page.locator("#conversation")).to_contain_text("Hamlet")
    expect(liked).to_have_count(0)
    panel.chat.reload()
    panel.titles.filter(has_text="snow").click()
    expect(first.get_by_role("button", name="Liked", exact=True)).to_be_visible()
    expect(liked).to_have_count(1)


def test_a_thumb_that_comes_late_is_kept_with_its_own_conversation(panel: Panel) -> None:
    def turn_away(route: Route) -> None:
        panel.titles.filter(has_text="grass").click()
        expect(panel.page.locator("#conversation")).to_contain_text("It is green.")
        route.continue_()

    panel.titles.filter(has_text="Hamlet").click()
    row = panel.page.locator("#conversation .bot-row").first
    expect(row).to_contain_text("Shakespeare did.")
    panel.page.route("**/run/predict**", turn_away)
    row.get_by_role("button", name="Dislike", exact=True).click()
    panel.page.wait_for_function("Object.values(localStorage).join().includes('\"dislike\"')")
    assert [one["turns"][1].get("rating") for one in panel.chat.stored()] == [None, "dislike"]


def test_what_is_asked_is_kept_with_model_seed_and_parameters(chat: ChatPage) -> None:
    chat.greedy(4)
    chat.set_number("seed", 11)
    chat.ask("What colour is grass?")
    turn = chat.last_turn()
    assert turn["model"] == "smollm2-135m-instruct"
    assert turn["repo"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert turn["seed"] == 11
    assert turn["sampling"]["temperature"] == 0
    assert turn["sampling"]["max_new_tokens"] == 4


def test_another_conversation_opened_in_mid_reply_loses_nothing(panel: Panel) -> None:
    panel.chat.set_number("max-new-tokens", 2000)
    panel.chat.send("Write a very long story.")
    panel.page.wait_for_selector("body.chat-busy")
    panel.titles.filter(has_text="grass").click()
    expect(panel.page.locator("#conversation")).to_contain_text("It is green.")
    assert "Write a very long story." in [one["turns"][0]["content"] for one in panel.chat.stored()]


def test_a_conversation_open_in_two_tabs_loses_no_turn(context: BrowserContext, served: Served) -> None:
    one = Panel(ChatPage(context.new_page(), served.address), GRASS)
    two = Panel(ChatPage(context.new_page(), served.address))
    for panel in (one, two):
        panel.page.bring_to_front()
        panel.titles.click()
        panel.chat.greedy(4)
    for panel, question in ((one, "And the sky?"), (two, "And the sea?"), (one, "And the moon?")):
        panel.page.bring_to_front()
        panel.chat.ask(question)
    asked = ["What colour is grass?", "And the sky?", "And the sea?", "And the moon?"]
    assert [turn["content"] for turn in two.chat.stored()[0]["turns"][::2]] == asked
    two.page.bring_to_front()
    expect(two.page.locator("#conversation")).to_contain_text("And the moon?")
    two.act("grass", "Delete")
    one.page.bring_to_front()
    expect(one.titles).to_have_count(0)
    one.chat.ask("Are you still there?")
    assert [turn["content"] for turn in one.chat.stored()[0]["turns"][::2]] == [*asked, "Are you still there?"]


def test_prompts_of_the_library_go_where_they_belong(chat: ChatPage) -> None:
    chat.page.click("#show-prompts")
    chat.page.get_by_role("button", name="Short answers").click()
    expect(chat.page.locator("#system-prompt textarea")).to_have_value("Answer in at most two sentences.")
    chat.page.click("#show-prompts")
    chat.page.get_by_role("button", name="Five ideas").click()
    expect(chat.box).to_have_value("Give me five ideas for a weekend by the sea, one line each.")
    assert not chat.stored()


def test_own_prompts_are_kept_and_can_be_deleted(chat: ChatPage) -> None:
    chat.box.fill(f"Write about {HOSTILE}")
    chat.page.click("#show-prompts")
    chat.page.click("#prompts-keep-message")
    own = chat.page.locator("#prompts-message li").filter(has_text="Write about")
    expect(own).to_have_count(1)
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("#prompts")).to_be_hidden()
    chat.reload()
    chat.page.click("#show-prompts")
    expect(own).to_have_count(1)
    own.get_by_role("button", name="Delete").click()
    expect(own).to_have_count(0)
    assert chat.page.evaluate("window.hacked") is None


def test_without_storage_the_library_and_an_import_say_so_and_go_on(browser: Browser, served: Served) -> None:
    with watched_context(browser) as context:
        context.add_init_script(
            "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError') }"
        )
        chat = ChatPage(context.new_page(), served.address)
        chat.box.fill("Keep me")
        chat.page.click("#show-prompts")
        chat.page.click("#prompts-keep-message")
        expect(chat.page.locator("#prompts-note")).to_contain_text("storage is full or turned off")
        chat.page.click("#prompts-close")
        panel = Panel(chat)
        text = json.dumps({"format": "llama-demo conversations", "version": 1, "conversations": [GRASS]})
        panel.take("one.json", text.encode())
        expect(panel.note).to_contain_text("storage is full or turned off")
        expect(panel.titles).to_have_text(["What colour is grass?"])


def test_a_broken_entry_in_the_storage_is_passed_over(context: BrowserContext, served: Served) -> None:
    chat = ChatPage(context.new_page(), served.address)
    chat.page.evaluate('localStorage.setItem(\'llama-demo.conversation.x\', \'{"id": "x", "turns": [5]}\')')
    panel = Panel(chat, GRASS)
    expect(panel.titles).to_have_text(["What colour is grass?"])

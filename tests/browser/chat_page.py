"""What a visitor does on the chat tab, in their words."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.tab_page import TabPage

REPLY_SECONDS = 120.0
_STORED = """() => Object.entries(localStorage)
  .filter(([key]) => key.startsWith("llama-demo.conversation."))
  .map(([, value]) => JSON.parse(value))"""


class ChatPage(TabPage):
    def turn(self) -> None:
        """A link may have opened another tab: it stays, and the chat is ready behind it."""
        self.page.wait_for_selector("#conversation-list li", state="attached")

    @property
    def box(self) -> Locator:
        return self.page.locator("#message textarea")

    @property
    def error(self) -> str:
        return self.page.locator("#chat-error").inner_text()

    @property
    def conversation(self) -> str:
        return self.page.locator("#conversation").inner_text()

    def set_number(self, control: str, value: float) -> None:
        field = self.page.locator(f"#{control} input[type=number]")
        field.fill(str(value))
        field.press("Tab")

    def greedy(self, length: int) -> None:
        self.set_number("temperature", 0)
        self.set_number("max-new-tokens", length)

    def send(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str) -> str:
        """Sends `text` and returns the whole reply."""
        messages = self.page.locator("#conversation .user-row")
        before = messages.count()
        self.send(text)
        expect(messages).to_have_count(before + 1)
        return self.whole_reply()

    def whole_reply(self) -> str:
        self.wait_until_idle()
        return self.reply_so_far()

    def wait_until_idle(self) -> None:
        expect(self.page.locator("body")).not_to_have_class(re.compile("chat-busy"), timeout=REPLY_SECONDS * 1000)

    def wait_for_text(self, characters: int) -> None:
        """Waits until the reply that is coming has so many characters."""
        self.page.wait_for_function(
            "([place, count]) => (document.querySelector(place)?.innerText ?? '').length >= count",
            arg=["#conversation .bot-row:last-child .md", characters],
            timeout=REPLY_SECONDS * 1000,
        )

    def reply_so_far(self) -> str:
        """The newest reply as it is shown, without the line of figures."""
        replies = self.page.locator("#conversation .bot-row:not(:has(.thought-group)) .md").all_inner_texts()
        return replies[-1].strip() if replies else ""

    def stored(self) -> list[dict[str, Any]]:
        """The conversations that the browser keeps."""
        kept: list[dict[str, Any]] = self.page.evaluate(_STORED)
        return sorted(kept, key=lambda conversation: -conversation["updated"])

    def last_turn(self) -> dict[str, Any]:
        turn: dict[str, Any] = self.stored()[0]["turns"][-1]
        return turn

    def collect_steps(self) -> None:
        """From now on, every state of the newest reply that is drawn is noted down."""
        self.page.evaluate(
            """() => {
              window.steps = [];
              const look = () => {
                const shown = [...document.querySelectorAll("#conversation .bot-row:not(:has(.thought-group)) .md")];
                const text = shown.at(-1)?.innerText ?? "";
                if (text && text !== window.steps.at(-1)) window.steps.push(text);
              };
              new MutationObserver(look).observe(
                document.querySelector("#conversation"), { subtree: true, childList: true, characterData: true });
            }"""
        )

    def steps(self) -> list[str]:
        seen: list[str] = json.loads(self.page.evaluate("JSON.stringify(window.steps)"))
        return seen

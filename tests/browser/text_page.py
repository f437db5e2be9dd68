"""What a visitor does on the text tab, in their words."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.tab_page import TabPage

SECONDS = 120_000
_WATCH_FOR_BUSY = """(longest) => {
  const seen = (resolve) => document.body.classList.contains("text-busy") && resolve(true);
  window.wasBusy = new Promise((resolve) => {
    new MutationObserver(() => seen(resolve)).observe(document.body, { attributeFilter: ["class"] });
    setTimeout(() => resolve(false), longest);
  });
}"""


class TextPage(TabPage):
    def turn(self) -> None:
        """Its script has put the settings back, too."""
        self.page.click("#text-tab-button")
        self.page.wait_for_selector("body.text-ready")

    @property
    def box(self) -> Locator:
        return self.page.locator("#text-box")

    @property
    def text(self) -> str:
        return self.box.input_value()

    @property
    def new_part(self) -> str:
        """What is marked as new."""
        return self.page.locator("#text-backdrop mark").evaluate("mark => mark.textContent")  # type: ignore[no-any-return]

    @property
    def error(self) -> str:
        return self.page.locator("#text-error").evaluate("place => place.textContent")  # type: ignore[no-any-return]

    @property
    def branches(self) -> Locator:
        return self.page.locator("#text-branches button")

    @property
    def tokens(self) -> Locator:
        return self.page.locator("#tokens [data-index]")

    @property
    def alternatives(self) -> Locator:
        return self.page.locator("#token-alternatives button")

    def set_number(self, control: str, value: float) -> None:
        field = self.page.locator(f"#text-{control} input[type=number]")
        # The settings are a drawer on a phone: out of sight, they are set all the same.
        field.evaluate(
            "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', { bubbles: true }));"
            " field.dispatchEvent(new Event('blur')) }",
            str(value),
        )

    def greedy(self, length: int) -> None:
        self.set_number("temperature", 0)
        self.set_number("max-new-tokens", length)

    def view(self, name: str) -> None:
        self.page.click(f"#text-views [data-view={name}]")
        expect(self.page.locator("#text-column")).to_have_attribute("data-view", name)

    def go(self, *, button: str = "#text-go") -> None:
        """Starts, and waits for the end."""
        self.start(button=button)
        self.wait_until_idle()

    def start(self, *, button: str = "#text-go") -> None:
        """A request that is refused at once may be over before one looks: so the page itself watches for its begin."""
        self.page.evaluate(_WATCH_FOR_BUSY, SECONDS)
        self.page.click(button)
        assert self.page.evaluate("window.wasBusy")

    def wait_until_idle(self) -> None:
        expect(self.page.locator("body")).not_to_have_class(re.compile("text-busy"), timeout=SECONDS)

    def read_tokens(self) -> None:
        self.view("tokens")
        self.wait_for_tokens()

    def wait_for_tokens(self) -> None:
        self.page.wait_for_selector("#tokens [data-index]", timeout=SECONDS)
        self.wait_until_idle()
        expect(self.page.locator("#tokens .live")).to_have_count(0, timeout=SECONDS)

    def mark_tokens(self) -> None:
        self.tokens.first.evaluate("token => token.classList.add('seen')")

    def wait_for_other_tokens(self) -> None:
        """Than those that were marked."""
        expect(self.page.locator("#tokens .seen")).to_have_count(0, timeout=SECONDS)
        self.wait_for_tokens()

    def token_text(self) -> str:
        return "".join(self.tokens.all_text_contents()).replace("⏎\n", "\n")

    def stored(self) -> dict[str, Any]:
        """What the browser keeps of the tab, once it has saved the text that is there."""
        self.page.wait_for_function(
            "JSON.parse(localStorage.getItem('llama-demo.text'))?.text === document.querySelector('#text-box').value"
        )
        kept: dict[str, Any] = self.page.evaluate("JSON.parse(localStorage.getItem('llama-demo.text'))")
        return kept

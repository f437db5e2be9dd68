"""A tab of the page, as a visitor opens it."""

from __future__ import annotations

from playwright.sync_api import Page


class TabPage:
    """`open` begins anew; `ready` waits until the tab's own script runs."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        page.set_default_timeout(30_000)
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function("window.llamaDemo && document.querySelector('#message textarea')")

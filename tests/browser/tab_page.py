"""A tab of the page, as a visitor opens it."""

from __future__ import annotations

from typing import Self

from playwright.sync_api import Page


class TabPage:
    """`open` begins anew; `turn` goes to the tab, and waits until its own script runs."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        page.set_default_timeout(30_000)
        self.open()

    @classmethod
    def beside(cls, other: TabPage) -> Self:
        """This tab of a page that is open already, which stays as it is."""
        tab = cls.__new__(cls)
        tab.page, tab.address = other.page, other.address
        tab.turn()
        return tab

    def open(self) -> None:
        self.page.goto(self.address)
        self.loaded()

    def reload(self) -> None:
        self.page.reload()
        self.loaded()

    def loaded(self) -> None:
        self.page.wait_for_function("window.llamaDemo && document.querySelector('#message textarea')")
        self.turn()

    def turn(self) -> None:
        raise NotImplementedError

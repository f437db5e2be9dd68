"""A tab of the page, as a visitor opens it."""

from __future__ import annotations

from typing import Any, Self

from playwright.sync_api import Page

_LOOKS = 50
_LOOK_MILLISECONDS = 100


def wrong_with(page: Page, script: str, given: Any = None) -> list[str]:
    """What `script` finds wrong with the page, and still does once the page has had time to settle."""
    for _ in range(_LOOKS):
        found: list[str] = page.evaluate(script, given)
        if not found:
            break
        page.wait_for_timeout(_LOOK_MILLISECONDS)
    return found


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

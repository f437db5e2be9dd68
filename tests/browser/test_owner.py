"""The owner's corner of a public page: the password gives the owner's functions, in that browser alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from llama_demo.visitors import OWNER_COOKIE
from tests.browser.conftest import Served, watched_context
from tests.browser.test_models import LOAD_MILLISECONDS, card, open_models

PASSWORD = "correct horse battery"
MODEL = "smollm2-135m-instruct"


@pytest.fixture
def public(cache_folder: Path) -> Iterator[Served]:
    """The app as it is for strangers, with its model loaded."""
    app = Served(cache_folder, "--public", LLAMA_DEMO_OWNER_PASSWORD=PASSWORD)
    app.start()
    yield app
    app.stop()


def give(page: Page, password: str) -> None:
    page.fill("#owner input", password)
    page.press("#owner input", "Enter")


def buttons(page: Page) -> set[str]:
    """What the Models tab offers to do with the embedded model, once that is loaded."""
    page.locator("#models-tab-button").click()
    model = card(page, MODEL)
    expect(model).to_have_attribute("data-state", "ready", timeout=LOAD_MILLISECONDS)
    return set(model.get_by_role("button").all_inner_texts())


@pytest.mark.slow
def test_the_password_gives_the_owners_functions_to_one_browser_until_it_is_locked_again(
    browser: Browser, public: Served
) -> None:
    with watched_context(browser, refused=True) as owners, watched_context(browser) as strangers:
        page = open_models(owners.new_page(), public.address).page
        assert buttons(page) == {"Use it", "Sheet"}
        expect(page.locator("#models-owner")).to_be_hidden()

        page.locator("#owner summary").click()
        give(page, "guessed")
        expect(page.locator("#owner p")).to_have_text("That is not the owner's password. Check it and try again.")
        with page.expect_navigation():
            give(page, PASSWORD)
        expect(page.locator("#owner summary")).to_have_text("Unlocked for you, the owner")
        assert OWNER_COOKIE not in page.evaluate("document.cookie")
        (cookie,) = (one for one in owners.cookies() if one["name"] == OWNER_COOKIE)
        assert cookie["httpOnly"]
        assert PASSWORD not in page.content()

        assert buttons(page) == {"Unload", "Pin", "Use it", "Sheet"}
        expect(page.locator("#models-owner")).to_be_visible()
        stranger = open_models(strangers.new_page(), public.address).page
        assert buttons(stranger) == {"Use it", "Sheet"}
        card(page, MODEL).get_by_role("button", name="Unload").click()
        expect(card(stranger, MODEL)).not_to_have_attribute("data-state", "ready", timeout=LOAD_MILLISECONDS)
        card(page, MODEL).get_by_text("Load", exact=True).click()

        page.locator("#owner summary").click()
        with page.expect_navigation():
            page.get_by_role("button", name="Lock again").click()
        expect(page.locator("#owner summary")).to_have_text("For the owner", timeout=LOAD_MILLISECONDS)
        assert buttons(page) == {"Use it", "Sheet"}
        assert not [one for one in owners.cookies() if one["name"] == OWNER_COOKIE]


@pytest.mark.slow
def test_a_browser_that_keeps_no_cookies_is_told_that_the_password_was_right(browser: Browser, public: Served) -> None:
    with watched_context(browser) as context:

        def without_cookies(route: Route) -> None:
            answer = route.fetch()
            context.clear_cookies(name=OWNER_COOKIE)
            kept = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
            route.fulfill(response=answer, headers=kept)

        page = context.new_page()
        page.route("**/owner", without_cookies)
        page.goto(public.address)
        page.locator("#owner summary").click()
        give(page, PASSWORD)
        expect(page.locator("#owner p")).to_contain_text("this browser keeps no cookies")
        expect(page.locator("#owner summary")).to_have_text("For the owner")

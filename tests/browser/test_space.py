"""A Space's page in the browser: who owns it may sign in at the Hub, in a page of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Served, watched_context

SPACE = {
    "SPACE_ID": "somebody/llama-demo",
    "SPACE_HOST": "somebody-llama-demo.hf.space",
    "SPACE_AUTHOR_NAME": "somebody",
    "OPENID_PROVIDER_URL": "https://huggingface.co",
    "OAUTH_CLIENT_ID": "the-client",
    "OAUTH_CLIENT_SECRET": "secret",
}


@pytest.mark.slow
@pytest.mark.parametrize("password", ["", "correct horse"])
def test_the_owners_corner_has_what_the_space_was_given(
    browser: Browser, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    for name, value in {**SPACE, "LLAMA_DEMO_OWNER_PASSWORD": password}.items():
        monkeypatch.setenv(name, value)
    app = Served(cache_folder)
    app.start()
    try:
        with watched_context(browser, locale="ko-KR") as context:
            page = context.new_page()
            page.goto(app.address)
            page.locator("#owner summary").click()
            link = page.locator("#owner a")
            expect(link).to_contain_text("Hugging Face에 소유자로 로그인")
            expect(link).to_have_attribute("target", "_blank")
            expect(page.locator("#owner form")).to_be_visible(visible=bool(password))
            answer = context.request.get(f"{app.address}/{link.get_attribute('href')}", max_redirects=0)
            assert answer.headers["location"].startswith("https://huggingface.co/oauth/authorize?client_id=the-client&")
    finally:
        app.stop()

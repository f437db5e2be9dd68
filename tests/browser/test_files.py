"""The Files view of the text tab in a real Chromium, on the real model."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Served
from tests.browser.text_page import SECONDS, TextPage
from tests.text_file_runs import rows_of, write_prompts


def test_a_file_is_worked_through_cancelled_gone_on_with_and_taken_away(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    text = TextPage(context.new_page(), served.address)
    text.greedy(8)
    text.view("files")
    page = text.page
    page.set_input_files("#text-file-source input[type=file]", write_prompts(tmp_path / "in.csv", 150))
    expect(page.locator("#text-file-preview td").nth(1)).to_have_text("The dog 0, on warm stones")
    status = page.locator("#text-file-status")
    page.click("#text-file-run")
    expect(status).to_contain_text(re.compile(r"\b[1-9]\d* of 150 rows"), timeout=SECONDS)
    page.click("#text-file-cancel")
    expect(status).to_contain_text("of 150 rows are done.", timeout=SECONDS)
    page.click("#text-file-run")
    expect(status).to_contain_text("Done: 150 rows.", timeout=SECONDS)
    with page.expect_download() as download:
        page.click("#text-file-result")
    assert download.value.suggested_filename == "in-results.csv"
    rows = rows_of(Path(download.value.path()))
    assert [row["id"] for row in rows] == [str(number) for number in range(150)]
    assert all(row["completion"] and not row["error"] for row in rows)

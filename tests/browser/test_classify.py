"""The classification tab in a real browser, on the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from llama_demo.ui.classify_train import sample
from tests.browser.classify_page import SECONDS, ClassifyPage
from tests.browser.conftest import Served

LINE = "Do you know when the museum opens?"


@pytest.mark.slow
def test_a_head_trained_on_forty_pasted_lines_survives_a_restart_as_a_file_with_the_same_scores(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    report = tab.train(sample(), "visitors")
    for part in (".figures", ".confusion", ".calibration"):
        expect(report.locator(part)).to_be_visible()
    before = tab.classify(LINE, "visitors")
    assert set(before) == {"praise", "complaint", "question"}
    assert next(iter(before)) == "question"
    path = tab.download("visitors", tmp_path)
    tab.page.goto("about:blank")
    served.stop()
    served.start()
    tab.open()
    expect(tab.page.locator("#classify-text textarea")).to_have_value(LINE)
    expect(tab.upload(path)).to_contain_text("already")
    expect(tab.upload(path, "again")).to_contain_text("again is in the list")
    assert tab.classify(LINE, "again") == before


@pytest.mark.slow
def test_a_worked_example_is_one_click_away_and_marks_its_words(context: BrowserContext, served: Served) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    tab.example("Example: a review")
    expect(tab.page.locator("#classify-found .bars li")).to_have_count(2, timeout=SECONDS)
    assert set(tab.bars()) == {"positive", "negative"}
    expect(tab.page.locator("#classify-found .explained mark").first).to_be_visible()
    tab.example("Example: five messages")
    expect(tab.page.locator("#classify-found tbody tr")).to_have_count(5)


@pytest.mark.slow
def test_what_looks_like_a_template_or_markup_is_shown_as_it_was_written(
    context: BrowserContext, served: Served
) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    odd = "${1 + 1} {{value}} <b>bold</b> <img src=x onerror=alert(1)>"
    tab.page.fill("#labels textarea", "${2 + 2}, {{title}}, <i>x</i>")
    assert set(tab.classify(odd)) == {"${2 + 2}", "{{title}}", "<i>x</i>"}
    expect(tab.page.locator("#classify-found .explained")).to_have_text(odd)


def test_what_is_wrong_is_said_where_it_was_asked_and_nothing_is_lost(context: BrowserContext, served: Served) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    tab.page.fill("#labels textarea", "alone")
    tab.classify("a text")
    expect(tab.page.locator("#classify-found [role=alert]")).to_contain_text("2 to 200")
    expect(tab.page.locator("#classify-text textarea")).to_have_value("a text")
    tab.view("train")
    tab.page.click("#train-sample")
    expect(tab.page.locator("#train-preview")).to_contain_text("40 examples with 3 labels")


def test_on_a_phone_the_classification_tab_does_not_scroll_sideways(phone: BrowserContext, served: Served) -> None:
    tab = ClassifyPage(phone.new_page(), served.address)
    for view in ("use", "train", "kept"):
        tab.view(view)
        column = "document.querySelector('#classify-tab > .column')"
        assert tab.page.evaluate(f"{column}.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth"), view

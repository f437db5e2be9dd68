"""The classification tab in a real browser, on the embedded model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, expect

from llama_demo.catalog import EMBEDDED
from llama_demo.classify import head as heads
from llama_demo.classify.head import Backbone, Head
from llama_demo.ui.classify_train import sample
from tests.browser.classify_page import SECONDS, ClassifyPage
from tests.browser.conftest import Served
from tests.browser.tab_page import wrong_with
from tests.browser.test_layout import WIDER
from tests.text_file_runs import rows_of

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
    expect(tab.page.locator("#classify-found .explained mark").first).to_be_visible(timeout=SECONDS)
    tab.example("Example: five messages")
    expect(tab.page.locator("#classify-found tbody tr")).to_have_count(5, timeout=SECONDS)


@pytest.mark.slow
def test_what_looks_like_a_template_or_markup_is_shown_as_it_was_written(
    context: BrowserContext, served: Served
) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    odd = "${1 + 1} {{value}} <b>bold</b> <img src=x onerror=alert(1)>"
    tab.page.fill("#labels textarea", "${2 + 2}, {{title}}, <i>x</i>")
    assert set(tab.classify(odd)) == {"${2 + 2}", "{{title}}", "<i>x</i>"}
    expect(tab.page.locator("#classify-found .explained")).to_have_text(odd)


@pytest.mark.slow
def test_a_labelled_file_is_worked_through_cancelled_gone_on_with_and_reported(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    """The rows of the sample many times over, each with a number of its own."""
    source = tmp_path / "in.csv"
    pairs = [line.split("\t") for line in sample().splitlines()]
    rows = ((number, *pairs[number % len(pairs)]) for number in range(600))
    lines = "".join(f'{number},"{text} {number}",{label}\n' for number, text, label in rows)
    source.write_text(f"id,text,label\n{lines}", encoding="utf-8")
    tab = ClassifyPage(context.new_page(), served.address)
    page = tab.page
    page.fill("#labels textarea", "praise, complaint, question")
    tab.view("files")
    expect(page.locator("#classify-files-about")).to_contain_text("the labels praise, complaint, question")
    page.set_input_files("#classify-file-source input[type=file]", source)
    expect(page.locator("#classify-file-preview td").nth(1)).to_contain_text(pairs[0][0])
    status, report = page.locator("#classify-file-status"), page.locator("#classify-file-report")
    page.click("#classify-file-run")
    expect(status).to_contain_text(re.compile(r"\b[1-9]\d* of 600 rows"), timeout=SECONDS)
    page.click("#classify-file-cancel")
    expect(status).to_contain_text("of 600 rows are done.", timeout=SECONDS)
    expect(report).to_be_empty()
    page.click("#classify-file-run")
    expect(status).to_contain_text("Done: 600 rows.", timeout=SECONDS)
    expect(report).to_contain_text("600 rows have a label")
    for part in (".figures", ".confusion", ".calibration"):
        expect(report.locator(part)).to_be_visible()
    with page.expect_download() as download:
        page.click("#classify-file-result")
    assert download.value.suggested_filename == "in-results.csv"
    made = rows_of(Path(download.value.path()))
    assert [row["id"] for row in made] == [str(number) for number in range(600)]
    assert all(row["predicted"] and not row["error"] for row in made)
    right = sum(row["predicted"] == row["label"] for row in made) / 6
    expect(report.locator(".figures dd").first).to_contain_text(f"{right:.1f} %")


def test_what_is_wrong_is_said_where_it_was_asked_and_nothing_is_lost(context: BrowserContext, served: Served) -> None:
    tab = ClassifyPage(context.new_page(), served.address)
    tab.page.fill("#labels textarea", "alone")
    tab.classify("a text")
    expect(tab.page.locator("#classify-found [role=alert]")).to_contain_text("2 to 200")
    expect(tab.page.locator("#classify-text textarea")).to_have_value("a text")
    tab.view("train")
    tab.page.click("#train-sample")
    expect(tab.page.locator("#train-preview")).to_contain_text("40 examples with 3 labels")


def test_a_kept_classifier_has_a_way_to_the_hub_and_a_free_model_needs_no_confirmation(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "shared.safetensors"
    heads.save(Head("shared", ("a", "b"), np.eye(2, 576, dtype=np.float32), "{text}", Backbone(EMBEDDED.name)), path)
    tab = ClassifyPage(context.new_page(), served.address)
    page, panel = tab.page, tab.page.locator("#push")
    expect(panel).to_be_hidden()
    expect(tab.upload(path)).to_contain_text("shared is in the list")
    tab.choose_kept("shared")
    panel.get_by_role("button", name="Put it on the Hugging Face Hub").click()
    expect(page.locator("#push-private input")).to_be_checked()
    expect(page.locator("#push-backbone input")).not_to_be_checked()
    page.check("#push-backbone input")
    page.fill("#push-repo input, #push-repo textarea", "no name")
    page.click("#push-go")
    expect(page.locator("#push-said")).to_contain_text("OWNER/NAME")
    expect(page.locator("#push-confirmed")).to_be_hidden()
    page.click("#kept-delete")
    page.click("#kept-delete_sure")
    expect(panel).to_be_hidden()


def test_on_a_phone_the_classification_tab_does_not_scroll_sideways(phone: BrowserContext, served: Served) -> None:
    tab = ClassifyPage(phone.new_page(), served.address)
    for view in ("use", "files", "train", "kept"):
        tab.view(view)
        assert wrong_with(tab.page, WIDER, "#classify-tab > .column, body") == [], view

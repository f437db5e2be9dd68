"""The Files view of the classification tab on the tests' own model: what decides, the result, and how good it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llama_demo.messages import messages
from llama_demo.runtime import Runtime
from llama_demo.ui.classify_files import ClassifyFiles
from llama_demo.ui.file_runs import FileRuns, FileView
from tests.text_file_runs import rows_of
from tests.ui.test_classify_use import ASKED, OWNER, given, keep_head

LABELLED = "text,label\n" + "".join(
    f"{text} {number},{label}\n" for number in range(6) for text, label in (("the net", "sea"), ("the bread", "land"))
)


class Section:
    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.files = ClassifyFiles(runtime)
        self.folder = folder
        self.runs = FileRuns(runtime, folder / "results", lambda path: None)

    def run(self, content: str, name: str = "in.csv", **changed: Any) -> FileView:
        """The last view of one run."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")

        async def read() -> list[FileView]:
            values = [given(**changed), None]
            views = self.runs.run(str(path), "text", lambda: self.files.plan(values, OWNER), OWNER, messages())
            return [view async for view in views]

        return asyncio.run(read())[-1]


@pytest.fixture
def section(runtime: Runtime, tmp_path: Path) -> Section:
    return Section(runtime, tmp_path)


def test_a_file_gets_its_labels_and_the_report_of_a_training_where_it_has_some(section: Section) -> None:
    last = section.run(LABELLED + ",sea\nthe sky,sky\n", labels="sea\nland")
    assert (last.done, last.total, last.error) == (14, 14, "")
    assert last.result is not None
    rows = rows_of(last.result)
    assert {row["predicted"] for row in rows[:12]} <= {"sea", "land"}
    assert [bool(row["error"]) for row in rows] == [False] * 12 + [True, False]
    right = sum(row["predicted"] == row["label"] for row in rows[:12]) / 12
    assert "12 rows have a label" in last.report
    assert "1 rows were left out" in last.report
    assert f"<dd>{right * 100:.1f} %" in last.report
    for part in ('class="figures"', 'class="confusion"', 'class="calibration"'):
        assert part in last.report
    assert section.run(LABELLED + ",sea\nthe sky,sky\n", labels="sea\nland").report == last.report, "a whole file's too"


def test_a_file_without_labels_has_no_report(section: Section) -> None:
    last = section.run("text\nthe net\n", labels="sea\nland")
    assert (last.done, last.report) == (1, "")


def test_a_trained_head_and_the_threshold_decide_as_they_are_chosen(runtime: Runtime, section: Section) -> None:
    keep_head(runtime, "filed")
    last = section.run("text\nthe net\nthe bread\n", classifier="filed", threshold=1)
    assert last.result is not None
    for row in rows_of(last.result):
        assert (row["classifier"], row["predicted"], row["error"]) == ("filed", "", "")
        settings = json.loads(row["settings"])
        assert settings == {"threshold": 1, "head": runtime.classification.find("filed").digest}
        assert sum(float(row[f"score label {number}"]) for number in range(3)) == pytest.approx(1.0, abs=1e-5)


def test_other_labels_have_a_result_of_their_own(section: Section) -> None:
    results = [section.run("text\nthe net\n", labels=labels).result for labels in ("a\nb", "a: first\nb", "a\nb")]
    assert results[0] == results[2] != results[1]


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_what_gives_no_text_one_label_has_no_report_and_says_so(runtime: Runtime, section: Section, kind: Any) -> None:
    name = f"filed {kind}".replace("_", " ")
    keep_head(runtime, name, kind=kind)
    last = section.run("text,label\nthe net,label 0\n", classifier=name)
    assert (last.done, last.error) == (1, "")
    assert last.result is not None
    assert "a report needs a classifier that gives each text one" in last.report
    assert "%" not in last.report


def test_labels_of_a_file_that_the_classifier_does_not_know_are_named_instead_of_a_report(section: Section) -> None:
    last = section.run("text,label\nthe net,water\n", labels="sea\nland")
    assert (last.done, last.error) == (1, "")
    assert "the texts have water, and the classifier has sea, land" in last.report


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": "alone"}, "2 to 200"),
        ({"classifier": "nobody"}, "no classifier named nobody"),
        ({"threshold": 7}, "0 to 1"),
        ({"instruction": "{text} {text}"}, "once"),
    ],
)
def test_what_cannot_decide_is_a_sentence_and_no_row_is_made(
    section: Section, changed: dict[str, Any], words: str
) -> None:
    last = section.run("text\nthe net\n", **changed)
    assert words in last.error
    assert last.done == 0


def test_what_decides_is_said_in_the_visitors_words(section: Section) -> None:
    chosen = section.files.chosen
    assert "What decides: the labels sea, land.<" in chosen(ASKED, given())
    assert "the trained head mine. No label below 40.0 %." in chosen(ASKED, given(classifier="mine", threshold=0.4))
    assert "레이블 sea, land" in chosen({**ASKED, "language": "ko"}, given())
    assert "2 to 200" in chosen(ASKED, given(labels="sea"))
    nothing = chosen(ASKED, given(labels=" \n"))
    assert "Nothing decides yet" in nothing
    assert "error" not in nothing

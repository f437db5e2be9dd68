"""Training on the page's handlers, on the tests' own model: examples, their preview, the report, what is refused."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llama_demo.classify.examples import examples_from
from llama_demo.classify.labelled import read_pasted
from llama_demo.classify.report import report
from llama_demo.messages import messages
from llama_demo.runtime import Runtime
from llama_demo.ui.classify_report import MOST_DRAWN, report_html
from llama_demo.ui.classify_train import FIELDS, ClassifyTrain, sample
from llama_demo.visitors import Role, Visitor
from tests.ui.test_classify_endpoints import EXAMPLES

OWNER = Visitor("", Role.OWNER)
ASKED = {"id": "one", "language": "en"}
PASTED = "\n".join(f"{each['text']}\t{each['label']}" for each in EXAMPLES)


def given(**changed: Any) -> dict[str, Any]:
    values = {"pasted": PASTED, "file": None, "text_column": "", "label_column": "", "name": "mine", "prompt": ""}
    values["model"] = None
    assert tuple(values) == FIELDS
    return {**values, **changed}


def views(train: ClassifyTrain, request: dict[str, Any], visitor: Visitor = OWNER) -> list[str]:
    async def read() -> list[str]:
        return [view async for view in train.train(ASKED, request, visitor)]

    return asyncio.run(read())


def test_pasted_examples_are_counted_and_a_few_are_shown(runtime: Runtime) -> None:
    page = ClassifyTrain(runtime).preview(ASKED, given())
    assert "24 examples with 2 labels" in page
    assert re.findall(r'bar-name">(.*?)<.*?bar-value">(.*?)<', page) == [("sea", "12"), ("land", "12")]
    assert page.count("<tr>") == 1 + 5
    assert "<td>harbour and boats</td><td>sea</td>" in page


def test_nothing_is_said_of_nothing(runtime: Runtime) -> None:
    assert ClassifyTrain(runtime).preview(ASKED, given(pasted="")) == ""


def test_a_file_is_read_instead_of_what_was_pasted(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"id": 1, "b": each["text"], "a": each["label"]}) for each in EXAMPLES))
    page = ClassifyTrain(runtime).preview(
        ASKED, given(file=str(path), pasted="nonsense", text_column="b", label_column="a")
    )
    assert "24 examples with 2 labels. Texts are taken from the column b, labels from the column a." in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pasted": "\n".join(PASTED.splitlines()[:5])}, "10 to 50000"),
        ({"pasted": "\n".join(f"text {number}\tsame" for number in range(12))}, "two labels"),
        ({"pasted": PASTED + "\nnet and net\talone"}, "only this one has the label alone"),
        ({"pasted": PASTED + "\n\tsea"}, "its text is empty"),
        ({"pasted": PASTED + "\nnet and net\t "}, "has no label"),
        ({"pasted": "one column\n" * 12}, "has no labels"),
        ({"pasted": "text,label\n"}, "has no rows"),
        ({"pasted": "a,b\nc,d,e\n"}, "the row has 3 cells"),
        ({"pasted": PASTED + "\ud800"}, "broken character"),
        ({"label_column": "mood"}, "no column mood"),
        ({"pasted": None}, "examples is None"),
    ],
)
def test_what_cannot_be_learned_from_is_said_before_and_at_the_training(
    runtime: Runtime, changed: dict[str, Any], words: str
) -> None:
    train = ClassifyTrain(runtime)
    found = views(train, given(**changed))[-1]
    assert found.startswith('<p class="error" role="alert">')
    assert words in found
    if changed.get("pasted", ""):
        assert words in train.preview(ASKED, given(**changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"name": " "}, "English letters"), ({"prompt": "nowhere"}, "{text}"), ({"model": "gpt"}, "no model named gpt")],
)
def test_a_training_that_cannot_be_is_refused(runtime: Runtime, changed: dict[str, Any], words: str) -> None:
    found = views(ClassifyTrain(runtime), given(**changed))[-1]
    assert words in found.replace("&#123;", "{").replace("&#125;", "}")
    assert 'class="error"' in found


def test_a_wrong_encoding_and_an_unknown_kind_of_file_are_named(runtime: Runtime, tmp_path: Path) -> None:
    for name, content, words in (
        ("a.csv", "text,label\nschön,gut\n".encode("latin-1"), "UTF-8"),
        ("a.xlsx", b"PK\x03\x04", ".csv"),
    ):
        (tmp_path / name).write_bytes(content)
        page = ClassifyTrain(runtime).preview(ASKED, given(file=str(tmp_path / name)))
        assert 'class="error"' in page
        assert words in page


@pytest.mark.slow
def test_training_shows_its_progress_then_the_report_and_the_head_is_there(runtime: Runtime) -> None:
    made = views(ClassifyTrain(runtime), given(name="trained", prompt="It was {text}\nPlace:"))
    assert any("<progress" in view for view in made[:-1])
    page = made[-1]
    words = messages()
    for key in ("accuracy", "macro_f1", "confusion", "calibration", "majority"):
        assert words(f"classify.{key}") in page
    cells = [int(count) for count in re.findall(r'<td class="[a-z ]+" style="[^"]*">(\d+)</td>', page)]
    assert len(cells) == 4
    assert sum(cells) == len(EXAMPLES)
    assert "trained" in runtime.classification.heads.names()
    assert runtime.classification.find("trained").prompt == "It was {text}\nPlace:"
    assert "already" in views(ClassifyTrain(runtime), given(name="trained"))[-1]


def test_a_stopped_training_keeps_nothing(runtime: Runtime) -> None:
    train = ClassifyTrain(runtime)

    async def read() -> list[str]:
        made = []
        async for view in train.train(ASKED, given(name="stopped"), OWNER):
            made.append(view)
            train.stoppers.stop("one")
        return made

    assert messages()("classify.stopped") in asyncio.run(read())[-1]
    assert "stopped" not in runtime.classification.heads.names()


def test_the_sample_has_forty_examples_that_can_be_trained_on(runtime: Runtime) -> None:
    found = read_pasted(sample(), "sample")
    assert len(found.rows) == 40
    assert examples_from(found.rows, runtime.limits).labels == ("complaint", "praise", "question")


def test_a_report_shows_the_texts_it_was_most_wrong_about_and_escapes_them() -> None:
    import numpy as np

    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.05], [0.3, 0.7]])
    made = report(("<up>", "down"), np.array([0, 1, 1, 1]), shares, ["a", "b", "<script>x</script>", "d"])
    public = made.public()
    page = report_html(public, public["most_confidently_wrong"], messages())
    assert "<td>&lt;script&gt;x&lt;/script&gt;</td><td>down</td><td>&lt;up&gt;</td><td>95.0 %</td>" in page
    assert "75.0 %" in page
    assert page.count("<circle") == len(made.bins)
    assert page.count('class="right') == 2


def test_of_many_labels_the_commonest_confusions_are_listed() -> None:
    import numpy as np

    count = MOST_DRAWN + 1
    shares = np.roll(np.eye(count), 1, axis=1) * 0.9 + 0.1 / count
    labels = tuple(f"label {number:02}" for number in range(count))
    made = report(labels, np.arange(count), shares, ["t"] * count)
    page = report_html(made.figures(), (), messages())
    assert 'class="confusion"' not in page
    assert "<td>label 00</td><td>label 01</td><td>1</td>" in page

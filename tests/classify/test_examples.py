from __future__ import annotations

from typing import Any

import pytest

from llama_demo.classify.examples import examples_from
from llama_demo.classify_errors import BadExample
from llama_demo.errors import BadExamples, BadLabels, InvalidUnicode, MessageTooLong
from llama_demo.limits import Limits


def rows(count: int = 12, **changes: object) -> list[Any]:
    made: list[Any] = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(count)]
    made[3].update(changes)
    return made


def test_examples_have_labels_in_order_and_each_text_its_own(limits: Limits) -> None:
    examples = examples_from(rows(label=" b "), limits)
    assert examples.labels == ("a", "b")
    assert examples.classes[:4] == (0, 1, 0, 1)
    assert examples.texts[5] == "text 5"


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"text": ""}, 4),
        ({"text": " "}, 4),
        ({"text": None}, 4),
        ({"label": ""}, 4),
        ({"label": None}, 4),
        ({"label": 3}, 4),
        ({"label": "only me"}, 4),
    ],
)
def test_a_row_that_cannot_be_used_is_named(limits: Limits, changes: Any, number: int) -> None:
    with pytest.raises(BadExample) as raised:
        examples_from(rows(**changes), limits)
    assert raised.value.number == number


def test_too_few_too_many_and_one_class_are_refused(limits: Limits) -> None:
    for value in (rows(9), rows() * 5000, [{"text": "x", "label": "a"}] * 20, None, "text", [None] * 12):
        with pytest.raises(BadExamples):
            examples_from(value, limits)
    many = [{"text": "x", "label": str(number // 2)} for number in range(402)]
    with pytest.raises(BadLabels):
        examples_from(many, limits)
    with pytest.raises(MessageTooLong):
        examples_from(rows(text="x" * 1001), limits)
    with pytest.raises(InvalidUnicode):
        examples_from(rows(label="\ud800"), limits)

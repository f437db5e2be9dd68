from __future__ import annotations

import pytest

from llama_demo.classify.labels import Label, labels_from
from llama_demo.errors import BadLabels


def test_labels_are_names_or_names_with_descriptions() -> None:
    assert labels_from(["a", {"name": " b ", "description": "the second"}]) == (Label("a"), Label("b", "the second"))
    assert len(labels_from([str(number) for number in range(200)])) == 200


@pytest.mark.parametrize(
    "value",
    [
        [],
        ["one"],
        ["a", "a"],
        ["a", " a"],
        ["a", ""],
        ["a", "  "],
        ["a", 7],
        "ab",
        None,
        [str(number) for number in range(201)],
        ["a", "b" * 201],
        ["a", {"description": "nameless"}],
        ["a", {"name": "b", "description": "x" * 1001}],
    ],
)
def test_labels_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(BadLabels):
        labels_from(value)

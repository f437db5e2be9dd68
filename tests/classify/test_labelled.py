from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_demo.classify import labelled
from llama_demo.classify.labelled import label_of, read_file, read_pasted
from llama_demo.classify_errors import OneColumn
from llama_demo.errors import (
    BadJson,
    EmptyTable,
    InvalidUnicode,
    MissingColumn,
    NotUtf8,
    RaggedRow,
    TableTooLarge,
    TooManyRows,
    UnknownTableFormat,
)
from llama_demo.messages import messages

PAIRS = [("a good day", "up"), ("a bad day", "down"), ("quite, quite good", "up"), ("worse than bad", "down")]
ROWS = [{"text": text, "label": label} for text, label in PAIRS]


def lines(*cells: tuple[str, str], by: str = "\t") -> str:
    return "\n".join(by.join(pair) for pair in cells)


@pytest.mark.parametrize(
    "pasted",
    [
        lines(*PAIRS),
        lines(("text", "label"), *PAIRS),
        lines(("Tweet", "Mood"), *PAIRS),
        lines(*((label, text) for text, label in PAIRS)),
        lines(*((f'"{text}"', label) for text, label in PAIRS), by=","),
        "\r\n".join(json.dumps({"label": label, "text": text}) for text, label in PAIRS),
        "\n\n" + lines(*PAIRS) + "\n\n",
    ],
    ids=["tabs", "header", "unknown header", "label first", "csv", "jsonl", "blank lines"],
)
def test_texts_and_labels_are_found_whatever_their_order_and_header(pasted: str) -> None:
    assert list(read_pasted(pasted, "it").rows) == ROWS


def test_columns_can_be_chosen_by_name_or_number() -> None:
    head = "id\tfirst\tsecond\tkind"
    rows = [f"{number}\t{text}\t{text * 3}\t{kind}" for number, (text, kind) in enumerate(PAIRS)]
    pasted = "\n".join([head, *rows])
    assert read_pasted(pasted, "it").text_column == "second"
    found = read_pasted(pasted, "it", "first", "kind")
    assert list(found.rows) == ROWS
    assert found.columns == ("id", "first", "second", "kind")
    assert list(read_pasted(lines(*PAIRS), "it", "1", "2").rows) == ROWS


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(MissingColumn) as caught:
        read_pasted(lines(("text", "label"), *PAIRS), "it", label_column="mood")
    assert caught.value.columns == ("text", "label")


def test_lines_without_labels_are_refused_with_what_to_put_between() -> None:
    with pytest.raises(OneColumn) as caught:
        read_pasted("good stuff\nbad stuff\n", "it")
    assert "a tab or a comma" in messages().error(caught.value)


def test_numbers_are_labels_in_jsonl() -> None:
    pasted = "\n".join(json.dumps({"text": text, "label": n % 2}) for n, (text, _) in enumerate(PAIRS))
    assert [row["label"] for row in read_pasted(pasted, "it").rows] == ["0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("cell", "label"),
    [(0, "0"), (-1, "-1"), (" a\n", "a"), (" ", ""), (None, ""), (True, ""), (False, ""), (1.5, ""), (["a"], "")],
)
def test_a_label_is_a_text_or_a_whole_number(cell: object, label: str) -> None:
    assert label_of(cell) == label


@pytest.mark.parametrize(
    ("pasted", "error"),
    [
        ("  \n ", EmptyTable),
        ("a,b\nc,d,e\n", RaggedRow),
        ("{nothing}\n", BadJson),
        ("a\tb\n\ud800\tc", InvalidUnicode),
    ],
)
def test_what_cannot_be_read_says_why(pasted: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_pasted(pasted, "it")


def test_files_are_told_apart_by_their_ending(tmp_path: Path) -> None:
    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    assert list(read_file(written("a.tsv", lines(*PAIRS).encode())).rows) == ROWS
    with pytest.raises(UnknownTableFormat):
        read_file(written("a.xlsx", b"PK"))
    with pytest.raises(NotUtf8):
        read_file(written("a.csv", "text,label\nschön,gut\n".encode("latin-1")))


def test_a_file_of_too_many_rows_or_bytes_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(lines(*PAIRS))
    monkeypatch.setattr(labelled, "MOST_EXAMPLES", 2)
    with pytest.raises(TooManyRows):
        read_file(path)
    monkeypatch.setattr(labelled, "MOST_BYTES", 10)
    with pytest.raises(TableTooLarge):
        read_file(path)

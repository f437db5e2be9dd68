"""Labelled examples out of a table: which of its columns holds the texts and which the labels. It knows no model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_demo.classify.examples import MOST_CHARACTERS, MOST_EXAMPLES
from llama_demo.classify_errors import OneColumn
from llama_demo.errors import EmptyTable, MissingColumn, TableTooLarge, TooManyRows
from llama_demo.tables import CsvTable, JsonlTable, Table, open_table
from llama_demo.values import check_text

MOST_BYTES = 4 * MOST_CHARACTERS
_TEXT_NAMES = ("text", "texts", "sentence", "review", "message", "content", "글", "텍스트", "문장", "내용")
_LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "레이블", "라벨", "분류")


@dataclass(frozen=True, slots=True)
class Labelled:
    """`rows` are {text, label}; `columns` are all there are, by their names or else their numbers."""

    rows: tuple[dict[str, object], ...]
    columns: tuple[str, ...]
    text_column: str
    label_column: str


def read_file(path: Path, title: str = "", text_column: str = "", label_column: str = "") -> Labelled:
    """Reads a CSV, TSV or JSONL file; columns that are not named are found out. Raises `BadTable`."""
    title = title or path.name
    if (size := path.stat().st_size) > MOST_BYTES:
        raise TableTooLarge(title, size, MOST_BYTES)
    return _labelled(open_table(path, title), text_column, label_column)


def read_pasted(text: str, title: str, text_column: str = "", label_column: str = "") -> Labelled:
    """Reads rows that somebody pasted: objects in braces, cells between tabs, or a CSV. `title` names them in errors.

    Raises `BadTable`, `InvalidUnicode`.
    """
    check_text(text)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise EmptyTable(title)
    kind = ".jsonl" if lines[0].lstrip().startswith("{") else ".tsv" if all("\t" in line for line in lines) else ".csv"
    with tempfile.TemporaryDirectory(prefix="llama-demo-") as folder:
        path = Path(folder) / f"pasted{kind}"
        path.write_text(text, encoding="utf-8", newline="")
        table = JsonlTable(path, title) if kind == ".jsonl" else CsvTable(path, title)
        return _labelled(table, text_column, label_column)


def label_of(cell: object) -> str:
    """The label that a cell holds, empty where it holds none; whole numbers stand for labels in many a JSONL file."""
    label = str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell
    return label.strip() if isinstance(label, str) else ""


def _labelled(table: Table, text_column: str, label_column: str) -> Labelled:
    if not (records := list(_bounded(table))):
        raise EmptyTable(table.title)
    columns = table.columns
    if len(columns) < 2:
        raise OneColumn(table.title)
    label = _place(table, label_column) if label_column else _label_place(columns, records)
    text = _place(table, text_column) if text_column else _text_place(columns, records, label)
    if isinstance(table, CsvTable) and any(record[label] == columns[label] for record in records):
        # The first row is one of the examples, and no header: its label is there again.
        records, columns = [columns, *records], tuple(str(number + 1) for number in range(len(columns)))
    rows = tuple({"text": record[text], "label": label_of(record[label])} for record in records)
    return Labelled(rows, columns, columns[text], columns[label])


def _bounded(table: Table) -> Iterator[Sequence[object]]:
    """The cells of every row, in the order of the columns; a JSONL row may lack some, and then has None there."""
    for row in table.rows():
        if row.number > MOST_EXAMPLES:
            raise TooManyRows(table.title, MOST_EXAMPLES)
        yield [row.values.get(column) for column in table.columns]


def _place(table: Table, column: str) -> int:
    """Where the column of that name is, or of that number, counted from 1."""
    if column in table.columns:
        return table.columns.index(column)
    if column.isdecimal() and 1 <= int(column) <= len(table.columns):
        return int(column) - 1
    raise MissingColumn(table.title, 1, column, table.columns)


def _label_place(columns: Sequence[str], records: Sequence[Sequence[object]]) -> int:
    """The column that is called so; else the one with the fewest different values, of two such the last."""
    if (named := _called(columns, _LABEL_NAMES)) is not None:
        return named
    known = _called(columns, _TEXT_NAMES)
    places = [place for place in range(len(columns)) if place != known]
    different = {place: len({str(record[place]) for record in records}) for place in places}
    return min(reversed(places), key=lambda place: different[place])


def _text_place(columns: Sequence[str], records: Sequence[Sequence[object]], label: int) -> int:
    """The column that is called so; else the one with the longest values, that of the labels left out."""
    named = _called(columns, _TEXT_NAMES)
    if named is not None and named != label:
        return named
    places = [place for place in range(len(columns)) if place != label]
    return max(places, key=lambda place: sum(len(str(record[place])) for record in records))


def _called(columns: Sequence[str], names: Sequence[str]) -> int | None:
    lower = [column.strip().casefold() for column in columns]
    return next((lower.index(name) for name in names if name in lower), None)

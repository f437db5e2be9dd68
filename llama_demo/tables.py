"""Rows of a CSV or JSONL file, one after the other: the whole file is never in memory, and nothing in it is trusted.

What is wrong is said with its line and column. It knows nothing of what the rows are for.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from llama_demo.errors import (
    BadJson,
    BadQuotes,
    CellTooLong,
    ColumnTaken,
    DuplicateColumn,
    EmptyTable,
    MissingColumn,
    NotText,
    RaggedRow,
    TableTooLarge,
    TooManyRows,
    UnknownTableFormat,
)
from llama_demo.messages import shortened
from llama_demo.reasons import Reason
from llama_demo.table_lines import BOM, RECORD_CHARACTERS, Lines, TooLong, open_text

Value = str | int | float | None
CSV_NAMES, JSONL_NAMES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_DELIMITERS = ",;\t|"
_SNIFFED_CHARACTERS = 4096
"""The standard sniffer's patterns take quadratic time."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - some spreadsheets take them too
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """`number` counts rows from 1, `line` is the file's where the row begins; a CSV's values are all texts.

    `source` is the row as a JSONL file has it, so that what is written again is what was read, digit by digit."""

    number: int
    line: int
    values: Mapping[str, Any]
    source: str = ""


class CsvTable:
    """A CSV file with a header. Its delimiter is found out; its text must be UTF-8, with or without a mark."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        with open_text(path, title) as file:
            sample = file.read(_SNIFFED_CHARACTERS)
        self.marked = sample.startswith(BOM)
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(sample.removeprefix(BOM))
        with open_text(path, title) as file:
            header = next(self._records(Lines(file, title)), None)
        if header is None:
            raise EmptyTable(title)
        self.columns = tuple(header[1])
        for place, column in enumerate(self.columns):
            if column in self.columns[:place]:
                raise DuplicateColumn(title, header[0], column)

    def rows(self) -> Iterator[Row]:
        """All rows in order; empty lines are none. Raises `BadTable` at the first that is wrong."""
        with open_text(self.path, self.title) as file:
            records = self._records(Lines(file, self.title))
            next(records, None)
            for number, (line, cells) in enumerate(records, start=1):
                if len(cells) != len(self.columns):
                    last = self.columns[min(len(cells), len(self.columns)) - 1]
                    raise RaggedRow(self.title, line, len(cells), len(self.columns), last)
                yield Row(number, line, dict(zip(self.columns, cells, strict=True)))

    def header(self, added: Sequence[str]) -> bytes:
        """The first record of a file that has the columns of this one and those `added`."""
        return (BOM if self.marked else "").encode() + self._line((*self.columns, *added))

    def record(self, row: Row, added: Mapping[str, Value]) -> bytes:
        """`row` and what is `added` to it, as a record with its end."""
        return self._line((*row.values.values(), *added.values()))

    def cells(self, row: Row, added: Mapping[str, Value]) -> list[str]:
        """What reading the record of `row` and `added` gives."""
        return [_cell(value) for value in (*row.values.values(), *added.values())]

    def _line(self, values: Sequence[Value]) -> bytes:
        """All quoted: a spreadsheet that takes another delimiter must not find a formula inside a text."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([_cell(value) for value in values])
        return text.getvalue().encode()

    def parse(self, record: bytes) -> list[str]:
        """The cells of a record that `record` or `header` made. Raises `ValueError` for one that is none."""
        try:
            found = list(self._reader([record.decode().removeprefix(BOM)]))
        except csv.Error as error:
            raise ValueError(str(error)) from None
        if len(found) != 1:
            raise ValueError("not one record")
        return found[0]

    def _records(self, lines: Lines) -> Iterator[tuple[int, list[str]]]:
        """The cells of every record with its line."""
        reader = self._reader(lines)
        while True:
            lines.begin_record()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                raise BadQuotes(self.title, lines.first, self._column_of_end(lines.record)) from None
            except TooLong:
                raise CellTooLong(
                    self.title, lines.first, self._column_of_end(lines.record), RECORD_CHARACTERS
                ) from None
            if cells:
                yield lines.first, cells

    def _reader(self, lines: Any) -> Iterator[list[str]]:
        csv.field_size_limit(RECORD_CHARACTERS + 1)  # the module's own bound; ours is kept where lines are read
        return csv.reader(lines, delimiter=self.delimiter, strict=True)

    def _column_of_end(self, record: Sequence[str]) -> str:
        """The name of the column that the text of an unfinished record stands in."""
        try:
            cells = next(csv.reader(record, delimiter=self.delimiter), [])
        except csv.Error:
            cells = []
        columns = getattr(self, "columns", ())
        return columns[len(cells) - 1] if 0 < len(cells) <= len(columns) else str(len(cells))


class JsonlTable:
    """A file of JSON objects, one a line. Its columns are those of the first; other rows may have others."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        first = next(self.rows(), None)
        if first is None:
            raise EmptyTable(title)
        self.columns = tuple(first.values)

    def rows(self) -> Iterator[Row]:
        """All rows in order; empty lines are none. Raises `BadTable` at the first that is wrong."""
        with open_text(self.path, self.title) as file:
            lines = Lines(file, self.title)
            number = 0
            while True:
                lines.begin_record()
                try:
                    line = next(lines, None)
                except TooLong:
                    raise CellTooLong(self.title, lines.first, "", RECORD_CHARACTERS) from None
                if line is None:
                    return
                if source := line.strip(" \t\r\n"):
                    number += 1
                    yield Row(number, lines.first, self._object(source, lines.first), source)

    def header(self, added: Sequence[str]) -> bytes:  # noqa: ARG002 - as a CSV's
        """Nothing: every row of such a file names its columns."""
        return b""

    def record(self, row: Row, added: Mapping[str, Value]) -> bytes:
        """`row` and what is `added` to it, as a line with its end."""
        text = _json({name: _finite(value) for name, value in added.items()})
        joint = ", " if row.values and added else ""
        return f"{row.source[:-1].rstrip()}{joint}{text[1:]}\n".encode()

    def cells(self, row: Row, added: Mapping[str, Value]) -> list[Any]:
        """What reading the record of `row` and `added` gives."""
        return [*row.values.items(), *added.items()]

    def parse(self, record: bytes) -> list[Any]:
        """The names and values of a record that `record` made. Raises `ValueError` for one that is none."""
        try:
            return list(_loads(record.decode()).items())
        except (RecursionError, _Duplicate):
            raise ValueError("not one record") from None

    def _object(self, source: str, line: int) -> Mapping[str, Any]:
        try:
            return _loads(source)
        except json.JSONDecodeError as error:
            raise BadJson(self.title, line, error.pos + 1, Reason("json.said", said=error.msg)) from None
        except _Duplicate as error:
            raise DuplicateColumn(self.title, line, error.name) from None
        except _Refused as error:
            raise BadJson(self.title, line, 1, error.reason) from None
        except ValueError as error:
            raise BadJson(self.title, line, 1, Reason("json.said", said=str(error))) from None
        except RecursionError:
            raise BadJson(self.title, line, 1, Reason("json.deep")) from None


Table = CsvTable | JsonlTable


def open_table(path: Path, title: str = "") -> Table:
    """The rows of `path`, whose name says what it is. `title` is what errors call it; its path where it is empty.

    Raises `BadTable`, `NotReadable`.
    """
    title = title or str(path)
    kind = Path(title).suffix.lower()
    if kind in CSV_NAMES:
        return CsvTable(path, title)
    if kind in JSONL_NAMES:
        return JsonlTable(path, title)
    raise UnknownTableFormat(title, (*CSV_NAMES, *JSONL_NAMES))


def check_table(
    table: Table, column: str, *, added: Sequence[str] = (), rows: int | None = None, size_bytes: int | None = None
) -> int:
    """Reads `table` to its end, and returns how many rows it has.

    Raises `BadTable` for whatever is wrong with it, a row without a text in `column` or with one of the columns to be
    `added`, more than `rows` rows or more than `size_bytes`: before anything is computed, so that the last line's fault
    costs nobody an hour.
    """
    if size_bytes is not None and (size := table.path.stat().st_size) > size_bytes:
        raise TableTooLarge(table.title, size, size_bytes)
    count = 0
    if isinstance(table, CsvTable) and column not in table.columns:
        raise MissingColumn(table.title, 1, column, _names(table.columns))
    for row in table.rows():
        count = row.number
        text_of(table, row, column)
        if taken := next((name for name in added if name in row.values), None):
            raise ColumnTaken(table.title, taken)
        if rows is not None and count > rows:
            raise TooManyRows(table.title, rows)
    if not count:
        raise EmptyTable(table.title)
    return count


def text_of(table: Table, row: Row, column: str) -> str:
    """The text of `row` in `column`. Raises `MissingColumn`, `NotText`."""
    if column not in row.values:
        raise MissingColumn(table.title, row.line, column, _names(tuple(row.values)))
    value = row.values[column]
    if not isinstance(value, str):
        raise NotText(table.title, row.line, column)
    return value


def harmless(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula: with an apostrophe, unless it is a number."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return harmless(value) if isinstance(value, str) else repr(value)


def _finite(value: Value) -> Value:
    """JSON has no other numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(values: Mapping[str, Value]) -> str:
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(values)
    return text


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    """The first few names, as an error shows them."""
    return tuple(shortened(column, 30) for column in columns[:10])


def _delimiter(sample: str) -> str:
    """The delimiter that the standard library finds in `sample`, if the header has it; else the header's commonest."""
    header = re.split(r"[\r\n]", sample, maxsplit=1)[0]
    try:
        found = csv.Sniffer().sniff(sample, delimiters=_DELIMITERS).delimiter
    except csv.Error:
        found = ""
    if found and found in _DELIMITERS and found in header:
        return found
    return max(_DELIMITERS, key=header.count) if any(mark in header for mark in _DELIMITERS) else ","


class _Refused(ValueError):
    """What is JSON to Python, and no record here."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Duplicate(Exception):
    """An object has a name twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _loads(source: str) -> dict[str, Any]:
    value = json.loads(source, object_pairs_hook=_object_of, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise _Refused(Reason("json.no_object"))
    return value


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Duplicate(name)
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(Reason("json.no_number", name=name))

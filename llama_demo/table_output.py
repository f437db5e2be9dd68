"""The file that rows are written to with what was made for them: it says itself how far it is, and can be gone on with.

Whatever ended the writing, every record but a torn last one is whole; that one is cut off. It makes nothing itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from llama_demo.errors import DiskFull, ForeignOutput, MadeOtherwise, NotWritable, OutputInUse, UnknownTableFormat
from llama_demo.reasons import Reason
from llama_demo.table_lines import RECORD_CHARACTERS
from llama_demo.tables import JSONL_NAMES, CsvTable, Row, Table, Value

ERROR = "error"
"""The column of what went wrong with a row; empty where nothing did."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RECORD_BYTES = 16 * RECORD_CHARACTERS


class Output:
    """The rows of `table`, each with the `fixed` values, those that were `made` for it, and its error.

    Opening it reads what is there: `done` rows, `failed` of them with an error. `remaining` are the rows to come.

    Raises `UnknownTableFormat` where it is not of the table's kind, `ForeignOutput` where what is there was not made
    from this table, `MadeOtherwise` where its `fixed` values are others, `OutputInUse`, `NotWritable`.
    """

    def __init__(
        self, path: Path, table: Table, *, fixed: Mapping[str, Value], made: Sequence[str], title: str = ""
    ) -> None:
        self.path = path
        self.done = self.failed = 0
        self._title = title or str(path)
        self._table = table
        self._fixed = fixed
        self._made = tuple(made)
        self._check_kind()
        self._header = table.header((*fixed, *self._made, ERROR))
        self.remaining: Iterator[Row] = table.rows()
        self._file = self._open()
        try:
            self._end = self._read()
            self._file.truncate(self._end)
            self._file.seek(self._end)
            if self._end == 0:
                self._write(self._header)
        except BaseException:
            self._file.close()
            raise

    def append(self, row: Row, made: Mapping[str, Value], error: str = "") -> None:
        """Writes `row` and what was `made` for it, or the `error`. Raises `DiskFull`, `NotWritable`; the file then ends
        with the row before."""
        values = {name: made.get(name) for name in self._made}
        self._write(self._table.record(row, {**self._fixed, **values, ERROR: error or None}))
        self.done += 1
        self.failed += bool(error)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_kind(self) -> None:
        kinds = (self._table.path.suffix.lower(),) if isinstance(self._table, CsvTable) else JSONL_NAMES
        if Path(self._title).suffix.lower() not in kinds:
            raise UnknownTableFormat(self._title, kinds)

    def _open(self) -> BinaryIO:
        try:
            if self.path.exists() and self.path.samefile(self._table.path):
                raise NotWritable(self._title, Reason("file.is_input"))
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise NotWritable(self._title, Reason("file.system", said=error.strerror or type(error).__name__)) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputInUse(self._title) from None
        return file

    def _read(self) -> int:
        """Counts the rows that are there, and returns where the last whole one ends."""
        end = 0
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for record, whole in _records(file, quoted=isinstance(self._table, CsvTable)):
                headed = end > 0 or not self._header
                if not whole:
                    self._check_torn(record.rstrip(b"\0"), headed)
                    break
                if headed:
                    self._count(record)
                elif record != self._header:
                    raise self._foreign(self._other_header(record))
                end += len(record)
        return end

    def _count(self, record: bytes) -> None:
        number = self.done + 1
        row = next(self.remaining, None)
        if row is None:
            raise self._foreign(f"it has more than {self.done} rows")
        try:
            cells = self._table.parse(record)
        except ValueError:
            raise self._foreign(f"row {number} is no such row") from None
        ours = self._table.cells(row, {**self._fixed, **dict.fromkeys((*self._made, ERROR))})
        if len(cells) != len(ours) or _named(cells) != _named(ours):
            raise self._foreign(f"in row {number} {_difference(_named(cells), _named(ours))}")
        own, known = len(row.values), len(row.values) + len(self._fixed)
        if cells[:own] != ours[:own]:
            raise self._foreign(f"row {number} is another")
        for column, cell, wanted in zip(self._fixed, cells[own:known], ours[own:known], strict=True):
            if cell != wanted:
                raise MadeOtherwise(self._title, column, _said(cell), _said(wanted))
        self.done = number
        self.failed += cells[-1] not in ("", (ERROR, None))

    def _other_header(self, record: bytes) -> str:
        try:
            return _difference(self._table.parse(record), self._table.parse(self._header))
        except ValueError:
            return "its columns are others"

    def _check_torn(self, record: bytes, headed: bool) -> None:
        """Only what may be the beginning of our next record is cut off."""
        row = None
        if headed and (row := next(self.remaining, None)) is not None:
            self.remaining = chain([row], self.remaining)
        begins = self._header if row is None else self._table.record(row, self._fixed).rstrip(b"}\n")
        if (headed and row is None) or not (begins.startswith(record) or record.startswith(begins)):
            raise self._foreign(
                f"what it has of row {self.done + 1} is another" if headed else "its columns are others"
            )

    def _foreign(self, problem: str) -> ForeignOutput:
        return ForeignOutput(self._title, self._table.title, problem)

    def _write(self, record: bytes) -> None:
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            if error.errno in _FULL:
                free = shutil.disk_usage(self.path.parent).free
                raise DiskFull(self._title, len(record), free) from None
            raise NotWritable(self._title, Reason("file.system", said=error.strerror or type(error).__name__)) from None
        self._end += len(record)


def _named(cells: Sequence[Any]) -> list[str]:
    """The columns of a record that names them itself."""
    return [cell[0] for cell in cells if isinstance(cell, tuple)]


def _said(cell: Any) -> str:
    """A cell's value as an error shows it."""
    value = cell[1] if isinstance(cell, tuple) else cell
    return str(value) or "-"


def _difference(there: Sequence[str], ours: Sequence[str]) -> str:
    """In what way columns that are there are not ours."""
    if (lacking := next((column for column in ours if column not in there), None)) is not None:
        return f"it has no column {lacking}"
    if (more := next((column for column in there if column not in ours), None)) is not None:
        return f"it has a column {more}"
    return "its columns are others"


def _records(file: BinaryIO, *, quoted: bool) -> Iterator[tuple[bytes, bool]]:
    """The records of `file`, and whether they are whole: the last may be torn. One that is longer than any of ours is
    the last too.

    All our cells are quoted, and quotes in them doubled: a line ends a record where the quotes so far are even.
    """
    record: list[bytes] = []
    length = quotes = 0
    while length < _RECORD_BYTES and (line := file.readline(_RECORD_BYTES)):
        record.append(line)
        length += len(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n") and not (quoted and quotes % 2):
            yield b"".join(record), True
            record, length, quotes = [], 0, 0
    if record:
        yield b"".join(record), False

"""The lines of a text file that must be UTF-8, with a bound on how long one record may be. It knows no format."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from llama_demo.errors import NotReadable, NotUtf8
from llama_demo.reasons import Reason

RECORD_CHARACTERS = 4_000_000
"""One row is no longer than this, or a file whose first quote is never closed would be read into memory whole."""
BOM = "\ufeff"


class TooLong(Exception):
    """A record has too many characters."""


class Lines:
    """The lines of a file as a reader asks for them, those of the present record kept, with a bound on their length."""

    def __init__(self, file: io.TextIOWrapper, title: str) -> None:
        self._file = file
        self._title = title
        self._number = 0
        self._room = RECORD_CHARACTERS
        self.record: list[str] = []
        self.first = 1

    def begin_record(self) -> None:
        """The next line is the first of a new record."""
        self.record = []
        self._room = RECORD_CHARACTERS
        self.first = self._number + 1

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._room + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._room -= len(line)
        self.record.append(line)
        if self._room < 0:
            raise TooLong
        if "\0" in line:
            refuse_encoding(Path(self._file.name), self._title)
        return line.removeprefix(BOM) if self._number == 1 else line


@contextmanager
def open_text(path: Path, title: str) -> Iterator[io.TextIOWrapper]:
    """`path` as text, its line ends as they are. Raises `NotReadable`, and `NotUtf8` from whatever reads it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield file
    except UnicodeDecodeError:
        refuse_encoding(path, title)
    except OSError as error:
        raise NotReadable(title, Reason("file.system", said=error.strerror or type(error).__name__)) from None


def refuse_encoding(path: Path, title: str) -> NoReturn:
    """Raises `NotUtf8` with the place, counted from 1, of the first byte of `path` that is no part of such a text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    before, line = 0, 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                whole = error.object[: error.start]
                raise NotUtf8(title, line + whole.count(b"\n"), before - held + error.start + 1) from None
            if (place := text.find("\0")) >= 0:
                whole = text[:place].encode()
                raise NotUtf8(title, line + whole.count(b"\n"), before - held + len(whole) + 1)
            if not chunk:
                raise NotUtf8(title, line, before + 1)
            before += len(chunk)
            line += text.count("\n")

"""What can go wrong, as types that carry data. The words are in `messages/`, chosen at the edge.

LlamaDemoError
├── InvalidInput                 the caller can mend it: HTTP 400, usage
│   ├── InvalidParameter         a sampling value out of range or of the wrong type
│   ├── InvalidSetting           a flag or an environment variable
│   ├── BadCatalog               a catalog file, with the line at fault
│   ├── InvalidHistory           a turn with an unknown role or a missing field
│   ├── EmptyMessage
│   ├── InvalidUnicode
│   ├── MessageTooLong           more characters than this server takes
│   ├── PromptTooLong            more tokens than the context holds
│   ├── ForgedTurn               text that contains the template's own turn markers
│   ├── UnknownModel             with the nearest name there is
│   ├── TargetExists             what would be written is there already
│   ├── BadLabels
│   ├── BadExamples              labelled examples, all of them together
│   ├── UnknownClassifier        with the nearest name, if there is any
│   ├── NameTaken                a classifier of that name is there, or being trained
│   ├── UntrainedHead            a file without the trained numbers of a head
│   ├── BadHead                  a head's file that is not what it claims
│   ├── WrongBackbone            a head on a model that it was not trained on
│   └── Unsupported              this engine cannot do what was asked
├── BadCheckpoint                a model file that is not what it claims
├── BadTable                     a file of rows that cannot be read, or not as was asked
│   ├── NotUtf8                  with the place of the first byte that is not
│   ├── UnknownTableFormat
│   ├── EmptyTable
│   ├── DuplicateColumn
│   ├── MissingColumn
│   ├── ColumnTaken              the input has a column that the output needs
│   ├── RaggedRow                a row with more or fewer cells than the header
│   ├── CellTooLong
│   ├── BadQuotes
│   ├── BadJson
│   ├── NotText
│   ├── TableTooLarge            more bytes than this server takes
│   ├── TooManyRows              more rows than this server takes
│   ├── NotReadable
│   ├── ForeignOutput            a file to go on with that was not made from this input
│   └── MadeOtherwise            or by another model, or with other settings
├── DoesNotFit                   with the numbers
└── Unavailable                  try again, or do what the text says: HTTP 503
    ├── NoModel                  neither the package nor the Hub has the embedded model
    ├── Busy                     the queue is full
    ├── MemoryHeld               models in use hold the memory that is needed
    ├── LoadFailed               loading raised; carries the cause
    ├── EngineCrashed            the engine's process or thread died
    ├── HubUnavailable
    ├── DownloadDamaged, AccessNeeded: see `hub_errors`
    ├── DiskFull
    ├── CacheNotWritable
    ├── NotWritable
    ├── OutputInUse              another process writes the same file
    ├── MissingPackage
    ├── PortInUse
    ├── NothingToMeasure         no server that can be measured answers at an address
    └── Closing                  the app is shutting down
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from llama_demo.reasons import Reason


class LlamaDemoError(Exception):
    """The root. Subclasses are dataclasses, so every field is data for the words."""

    def data(self) -> dict[str, object]:
        """The fields by name, for the message table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.data().items())})"


@dataclass(eq=False)
class InvalidInput(LlamaDemoError):
    """Something the caller sent."""


@dataclass(eq=False)
class InvalidParameter(InvalidInput):
    name: str
    value: object
    expected: Reason


@dataclass(eq=False)
class InvalidSetting(InvalidInput):
    name: str
    value: object
    expected: Reason


@dataclass(eq=False)
class BadCatalog(InvalidInput):
    path: str
    line: int
    field: str
    problem: str


@dataclass(eq=False)
class InvalidHistory(InvalidInput):
    index: int
    problem: Reason


@dataclass(eq=False)
class EmptyMessage(InvalidInput):
    pass


@dataclass(eq=False)
class InvalidUnicode(InvalidInput):
    position: int


@dataclass(eq=False)
class MessageTooLong(InvalidInput):
    characters: int
    limit: int


@dataclass(eq=False)
class PromptTooLong(InvalidInput):
    tokens: int
    limit: int


@dataclass(eq=False)
class ForgedTurn(InvalidInput):
    marker: str


@dataclass(eq=False)
class UnknownModel(InvalidInput):
    name: str
    nearest: str


@dataclass(eq=False)
class TargetExists(InvalidInput):
    path: str


@dataclass(eq=False)
class BadLabels(InvalidInput):
    problem: Reason


@dataclass(eq=False)
class BadExamples(InvalidInput):
    problem: Reason


@dataclass(eq=False)
class UnknownClassifier(InvalidInput):
    name: str
    problem: Reason


@dataclass(eq=False)
class NameTaken(InvalidInput):
    name: str


@dataclass(eq=False)
class UntrainedHead(InvalidInput):
    path: str
    problem: Reason


@dataclass(eq=False)
class BadHead(InvalidInput):
    path: str
    problem: Reason


@dataclass(eq=False)
class WrongBackbone(InvalidInput):
    classifier: str
    problem: Reason


@dataclass(eq=False)
class Unsupported(InvalidInput):
    feature: str
    model: str


@dataclass(eq=False)
class BadCheckpoint(LlamaDemoError):
    path: str
    problem: Reason


@dataclass(eq=False)
class BadTable(LlamaDemoError):
    path: str


@dataclass(eq=False)
class NotUtf8(BadTable):
    line: int
    byte: int


@dataclass(eq=False)
class UnknownTableFormat(BadTable):
    known: tuple[str, ...]


@dataclass(eq=False)
class EmptyTable(BadTable):
    pass


@dataclass(eq=False)
class DuplicateColumn(BadTable):
    line: int
    column: str


@dataclass(eq=False)
class MissingColumn(BadTable):
    line: int
    column: str
    columns: tuple[str, ...]


@dataclass(eq=False)
class ColumnTaken(BadTable):
    column: str


@dataclass(eq=False)
class RaggedRow(BadTable):
    line: int
    cells: int
    columns: int
    last_column: str


@dataclass(eq=False)
class CellTooLong(BadTable):
    line: int
    column: str
    limit: int


@dataclass(eq=False)
class BadQuotes(BadTable):
    line: int
    column: str


@dataclass(eq=False)
class BadJson(BadTable):
    line: int
    position: int
    problem: Reason


@dataclass(eq=False)
class NotText(BadTable):
    line: int
    column: str


@dataclass(eq=False)
class TableTooLarge(BadTable):
    file_bytes: int
    limit_bytes: int


@dataclass(eq=False)
class TooManyRows(BadTable):
    limit: int


@dataclass(eq=False)
class NotReadable(BadTable):
    problem: Reason


@dataclass(eq=False)
class ForeignOutput(BadTable):
    source: str
    problem: str


@dataclass(eq=False)
class MadeOtherwise(BadTable):
    column: str
    there: str
    asked: str


@dataclass(eq=False)
class DoesNotFit(LlamaDemoError):
    name: str
    device: str
    needed_bytes: int
    free_bytes: int


@dataclass(eq=False)
class Unavailable(LlamaDemoError):
    """Not now, or not on this machine as it is."""


@dataclass(eq=False)
class NoModel(Unavailable):
    name: str
    package: str
    repo: str


@dataclass(eq=False)
class Busy(Unavailable):
    waiting: int
    seconds: float


@dataclass(eq=False)
class MemoryHeld(Unavailable):
    name: str
    device: str
    needed_bytes: int
    holders: tuple[str, ...]
    waited_seconds: float


@dataclass(eq=False)
class LoadFailed(Unavailable):
    name: str
    cause: BaseException


@dataclass(eq=False)
class EngineCrashed(Unavailable):
    model: str


@dataclass(eq=False)
class HubUnavailable(Unavailable):
    repo: str
    problem: str


@dataclass(eq=False)
class DiskFull(Unavailable):
    path: str
    needed_bytes: int
    free_bytes: int


@dataclass(eq=False)
class CacheNotWritable(Unavailable):
    path: str


@dataclass(eq=False)
class NotWritable(Unavailable):
    path: str
    problem: Reason


@dataclass(eq=False)
class OutputInUse(Unavailable):
    path: str


@dataclass(eq=False)
class MissingPackage(Unavailable):
    package: str
    command: str


@dataclass(eq=False)
class PortInUse(Unavailable):
    host: str
    port: int


@dataclass(eq=False)
class NothingToMeasure(Unavailable):
    url: str
    problem: str


@dataclass(eq=False)
class Closing(Unavailable):
    pass

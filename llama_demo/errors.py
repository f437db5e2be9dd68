"""What can go wrong, as types that carry data. The words are in `messages/`, chosen at the edge.

LlamaDemoError
├── InvalidInput                 the caller can mend it: HTTP 400, usage
│   ├── InvalidParameter         a sampling value out of range or of the wrong type
│   ├── InvalidSetting           a flag or an environment variable
│   ├── InvalidHistory           a turn with an unknown role or a missing field
│   ├── EmptyMessage
│   ├── InvalidUnicode
│   ├── MessageTooLong           more characters than this server takes
│   ├── PromptTooLong            more tokens than the context holds
│   ├── ForgedTurn               text that contains the template's own turn markers
│   ├── UnknownModel             with the nearest name there is
│   └── Unsupported              this engine cannot do what was asked
├── BadCheckpoint                a model file that is not what it claims
├── DoesNotFit                   with the numbers
└── Unavailable                  try again, or do what the text says: HTTP 503
    ├── NoModel                  neither the package nor the Hub has the embedded model
    ├── Busy                     the queue is full
    ├── MemoryHeld               models in use hold the memory that is needed
    ├── LoadFailed               loading raised; carries the cause
    ├── EngineCrashed            the engine's process or thread died
    ├── HubUnavailable
    ├── DiskFull
    ├── CacheNotWritable
    ├── MissingPackage
    ├── PortInUse
    ├── NothingToMeasure         no server that can be measured answers at an address
    └── Closing                  the app is shutting down
"""

from __future__ import annotations

from dataclasses import dataclass, fields


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
    expected: str


@dataclass(eq=False)
class InvalidSetting(InvalidInput):
    name: str
    value: object
    expected: str


@dataclass(eq=False)
class InvalidHistory(InvalidInput):
    index: int
    problem: str


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
class Unsupported(InvalidInput):
    feature: str
    model: str


@dataclass(eq=False)
class BadCheckpoint(LlamaDemoError):
    path: str
    problem: str


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

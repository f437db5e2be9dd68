"""What can go wrong with a model that another server runs, as types that carry data. `model` is the entry's name.

InvalidInput
├── RemoteRefused            the server does not take this request (HTTP 400), with its own words
└── RemoteKeepsTokens        what was asked for needs the model's tokens, which no such server gives
Unavailable
└── RemoteUnavailable
    ├── RemoteDown           nobody answers at its address
    ├── RemoteSilent         it took the request, and nothing came for too long
    ├── RemoteLost           it went away in the middle of an answer
    ├── RemoteFailed         it answered with an error of its own, with the HTTP status
    ├── RemoteGarbled        what it says is not OpenAI's API
    ├── RemoteBusy           it asks to wait (HTTP 429)
    ├── RemoteLocked         it does not take the token, or the variable that should hold one is empty
    └── RemoteLacksModel     with the names of some that it has
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput, Unavailable


@dataclass(eq=False)
class RemoteRefused(InvalidInput):
    model: str
    problem: str


@dataclass(eq=False)
class RemoteKeepsTokens(InvalidInput):
    model: str


@dataclass(eq=False)
class RemoteUnavailable(Unavailable):
    model: str


@dataclass(eq=False)
class RemoteDown(RemoteUnavailable):
    pass


@dataclass(eq=False)
class RemoteSilent(RemoteUnavailable):
    waited_seconds: float


@dataclass(eq=False)
class RemoteLost(RemoteUnavailable):
    pass


@dataclass(eq=False)
class RemoteFailed(RemoteUnavailable):
    """`status` 0 where the error came in the middle of an answer."""

    status: int


@dataclass(eq=False)
class RemoteGarbled(RemoteUnavailable):
    pass


@dataclass(eq=False)
class RemoteBusy(RemoteUnavailable):
    seconds: float


@dataclass(eq=False)
class RemoteLocked(RemoteUnavailable):
    variable: str


@dataclass(eq=False)
class RemoteLacksModel(RemoteUnavailable):
    wanted: str
    there: tuple[str, ...]

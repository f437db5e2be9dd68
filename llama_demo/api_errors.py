"""Why a request to the HTTP API was not taken, or nobody could be let in, as types that carry data.

InvalidInput
├── UnknownField             a field that the API does not have
├── MissingField
├── UnreadableBody           no JSON object
├── UnsupportedParameter     a field that the API has and this app, or this engine, cannot honour
├── UnknownPath              HTTP 404
├── WrongMethod              HTTP 405
├── NotAuthorised            HTTP 401
└── BadCredentialFile        a file of keys or of users, with the line at fault
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput


@dataclass(eq=False)
class UnknownField(InvalidInput):
    name: str


@dataclass(eq=False)
class MissingField(InvalidInput):
    name: str


@dataclass(eq=False)
class UnreadableBody(InvalidInput):
    pass


@dataclass(eq=False)
class UnsupportedParameter(InvalidInput):
    """`problem` is the message table's key of the reason."""

    name: str
    problem: str


@dataclass(eq=False)
class UnknownPath(InvalidInput):
    path: str


@dataclass(eq=False)
class WrongMethod(InvalidInput):
    method: str
    path: str


@dataclass(eq=False)
class NotAuthorised(InvalidInput):
    pass


@dataclass(eq=False)
class BadCredentialFile(InvalidInput):
    """`line` counts from 1; 0 where the file cannot be read at all."""

    path: str
    line: int

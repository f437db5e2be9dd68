"""Why something could not be put on the Hugging Face Hub, as types that carry data.

InvalidInput
├── PublicRepository         it is there and public, and private was asked for
└── LicenceNotConfirmed      the backbone's licence binds whoever passes it on
Unavailable
└── PushFailed               the Hub refused, or cannot be reached
    ├── NotSignedIn
    └── MayNotWrite
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput, Unavailable


@dataclass(eq=False)
class PublicRepository(InvalidInput):
    repo: str


@dataclass(eq=False)
class LicenceNotConfirmed(InvalidInput):
    backbone: str
    licence: str
    link: str


@dataclass(eq=False)
class PushFailed(Unavailable):
    repo: str
    problem: str


@dataclass(eq=False)
class NotSignedIn(PushFailed):
    pass


@dataclass(eq=False)
class MayNotWrite(PushFailed):
    pass

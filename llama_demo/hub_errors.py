"""Why the Hub did not give a file, as types that carry data.

Unavailable
├── DownloadDamaged          a file's hash is not the Hub's
└── AccessNeeded             the Hub does not let us in; itself where its words are not known
    ├── NoToken
    ├── TokenInvalid         or expired
    ├── TokenLacksScope
    ├── AccessNotRequested
    ├── AccessPending
    └── AccessRejected
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import Unavailable


@dataclass(eq=False)
class DownloadDamaged(Unavailable):
    repo: str
    file: str


@dataclass(eq=False)
class AccessNeeded(Unavailable):
    repo: str
    link: str


@dataclass(eq=False)
class NoToken(AccessNeeded):
    pass


@dataclass(eq=False)
class TokenInvalid(AccessNeeded):
    pass


@dataclass(eq=False)
class TokenLacksScope(AccessNeeded):
    pass


@dataclass(eq=False)
class AccessNotRequested(AccessNeeded):
    pass


@dataclass(eq=False)
class AccessPending(AccessNeeded):
    pass


@dataclass(eq=False)
class AccessRejected(AccessNeeded):
    pass

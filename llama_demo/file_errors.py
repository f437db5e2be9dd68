"""Why a file is not worked on now, or none can be, as types that carry data.

Unavailable
├── FileInProgress           a visitor has one at a time
├── NoTemporaryFolder        not one place of the system's can be written
└── TooManyFiles             all visitors together have so many
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import Unavailable


@dataclass(eq=False)
class FileInProgress(Unavailable):
    path: str


@dataclass(eq=False)
class TooManyFiles(Unavailable):
    limit: int


@dataclass(eq=False)
class NoTemporaryFolder(Unavailable):
    pass

"""Why a file is not worked on now, as types that carry data.

Unavailable
├── FileInProgress           a visitor has one at a time
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

"""Why classification gave nothing, as types that carry data.

Unavailable
└── NoNumbers                what the model made of a text overflowed, or is damaged
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import Unavailable


@dataclass(eq=False)
class NoNumbers(Unavailable):
    model: str

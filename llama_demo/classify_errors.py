"""Why classification gave nothing, as types that carry data.

InvalidInput
└── BadExamples
    └── BadExample           one of them, or of the texts to classify, with its number
BadTable
└── OneColumn                texts without their labels
Unavailable
└── NoNumbers                what the model made of a text overflowed, or is damaged
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import BadExamples, BadTable, Unavailable


@dataclass(eq=False)
class OneColumn(BadTable):
    """Texts without their labels."""


@dataclass(eq=False)
class NoNumbers(Unavailable):
    model: str


@dataclass(eq=False)
class BadExample(BadExamples):
    """One of them, or of the texts to classify: `number` counts from 1."""

    number: int

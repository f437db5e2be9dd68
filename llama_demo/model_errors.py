"""What is wrong between two models, as types that carry data.

InvalidInput
└── WrongBase                an adapter on a model that it was not trained on
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput


@dataclass(eq=False)
class WrongBase(InvalidInput):
    adapter: str
    base: str
    problem: str

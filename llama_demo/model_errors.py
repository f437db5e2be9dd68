"""What is wrong between two models, or between a model and what it is to be used for now, as types that carry data.

InvalidInput
├── WrongBase                an adapter on a model that it was not trained on
└── BaseMissing              an adapter whose base is not on this machine
Unavailable
├── DeviceLost               a GPU that was there at the start is not any more
├── NothingLent              no GPU became free in time
├── LentTimeUsed             a visitor's time on the lent GPU is used up, or less is left than this needs
└── JobInProgress            it is being downloaded, converted or put on the Hub, or asked for otherwise
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput, Unavailable


@dataclass(eq=False)
class WrongBase(InvalidInput):
    adapter: str
    base: str
    problem: str


@dataclass(eq=False)
class BaseMissing(InvalidInput):
    adapter: str
    base: str


@dataclass(eq=False)
class DeviceLost(Unavailable):
    name: str
    device: str


@dataclass(eq=False)
class NothingLent(Unavailable):
    pass


@dataclass(eq=False)
class LentTimeUsed(Unavailable):
    seconds: float


@dataclass(eq=False)
class JobInProgress(Unavailable):
    model: str

"""What the registry's books are kept of: where a model goes, one life of it, and the place of one who waits for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from llama_demo.errors import LlamaDemoError
from llama_demo.values import LoadProgress

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a model goes, and what it is counted for there from the start of its load until its close has returned.

    `parts` are the bytes a device of a model that is split over several; `device` then names them all. `others` are
    plans that would do as well, on other devices: which of them it is to be is decided when there is room.
    `kept_bytes` come beside `bytes` with the first such model, serve all later ones, and stay: an engine's libraries.
    `base` is the name of the model that it is built on, of which it holds a lease for as long as it is there.
    """

    device: str
    bytes: int
    parts: tuple[tuple[str, int], ...] = ()
    others: tuple[Plan, ...] = ()
    kept_bytes: int = 0
    base: str = ""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"a plan of {self.bytes} bytes")

    @property
    def shares(self) -> dict[str, int]:
        """Bytes by device, of those that go with the model."""
        return dict(self.parts) or {self.device: self.bytes}


class Phase(Enum):
    WAITING = "for memory"
    LOADING = "its bytes are counted from here on"
    READY = "resident, leased or idle"
    DRAINING = "no new leases; closed after the last one"


@dataclass(eq=False, slots=True)
class Model(Generic[R]):
    """One life of a model, from its first request until it is closed. A name may have an old one draining and a new."""

    name: str
    plan: Plan
    phase: Phase = Phase.WAITING
    claims: list[Claim[R]] = field(default_factory=list)
    """Of those who wait for it."""
    leases: int = 0
    value: R | None = None
    progress: LoadProgress = field(default_factory=lambda: LoadProgress("load"))
    idle_since: float = 0.0
    unwanted: bool = False
    """Unloaded while it was loading: it drains as soon as it has served those who wait."""
    closing: bool = False
    """Its closing has been given out: nobody else may close it."""


@dataclass(eq=False, slots=True)
class Claim(Generic[R]):
    """One request's place: settled with a `value`, which counts as a lease, or with an `error`."""

    model: Model[R]
    number: int
    since: float
    deadline: float
    value: R | None = None
    error: LlamaDemoError | None = None
    settled: threading.Event = field(default_factory=threading.Event)

    def settle(self, value: R | None, error: LlamaDemoError | None) -> None:
        """Every claim gets an error of its own: each is raised in another thread."""
        self.value = value
        self.error = None if error is None else type(error)(**error.data())
        self.settled.set()

"""The registry's books: which model is counted for which memory, who leases it, who waits, who must go.

Decisions only, on plain values: no lock, no thread, no clock, nothing loaded. What it decides to load or to close is
put into `to_load` and `to_close`; its owner does it, holds a lock around every call, and calls `advance` after changes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Generic, TypeVar

from llama_demo.errors import DoesNotFit, LlamaDemoError, LoadFailed, MemoryHeld, NoModel
from llama_demo.values import LoadProgress, ModelState, ResidentStatus

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a model goes, and what it is counted for there from the start of its load until its close has returned."""

    device: str
    bytes: int

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"a plan of {self.bytes} bytes")


@dataclass(frozen=True, slots=True)
class Idle:
    """A resident that nobody leases; `since` is the clock's reading at its last release."""

    bytes: int
    since: float


def choose_evictions(needed_bytes: int, free_bytes: int, idle: Sequence[Idle]) -> list[int] | None:
    """Which of `idle` (as indices) must go for `needed_bytes`, the least recently used first; None when all of them
    together are not enough, and then none should go."""
    chosen: list[int] = []
    for index in sorted(range(len(idle)), key=lambda index: idle[index].since):
        if needed_bytes <= free_bytes:
            break
        chosen.append(index)
        free_bytes += idle[index].bytes
    return chosen if needed_bytes <= free_bytes else None


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


class Ledger(Generic[R]):
    """Not safe for threads: its owner holds a lock."""

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = dict(budgets)
        self._current: dict[str, Model[R]] = {}
        """What a request for the name joins or leases."""
        self._counted: list[Model[R]] = []
        """Those whose bytes count, in order of loading."""
        self._failures: dict[str, LlamaDemoError] = {}
        self._pinned: set[str] = set()
        self._numbers = count(1)
        self.to_load: list[Model[R]] = []
        self.to_close: list[Model[R]] = []

    # What people do.

    def check_budget(self, name: str, plan: Plan) -> None:
        """Raises `DoesNotFit` for what would not fit if everything else were gone."""
        budget = self._budgets.get(plan.device, 0)
        if plan.bytes > budget:
            raise DoesNotFit(name, plan.device, plan.bytes, budget)

    def claim(self, name: str, plan: Plan | None, now: float, deadline: float) -> Claim[R] | None:
        """A lease of what is resident, or a place with those who wait for it; where there is neither, `plan` makes one
        (None without a plan)."""
        model = self._joinable(name)
        if model is None:
            if plan is None:
                return None
            model = self._current[name] = Model(name, plan)
            self._failures.pop(name, None)
        claim = Claim(model, next(self._numbers), now, deadline)
        model.unwanted = False
        model.claims.append(claim)
        if model.phase is Phase.READY:
            self._serve(model)
        return claim

    def withdraw(self, claim: Claim[R]) -> None:
        """Nobody waits for this place any more. A load that has begun goes on; one that has not is given up."""
        model = claim.model
        model.claims.remove(claim)
        if model.phase is Phase.WAITING and not model.claims:
            del self._current[model.name]

    def give_back(self, model: Model[R], now: float) -> None:
        """One lease less; idle time counts from here."""
        model.leases -= 1
        model.idle_since = now
        self._close_if_drained(model)

    def unload(self, name: str) -> None:
        model = self._current.get(name)
        if model is not None and model.phase is Phase.READY:
            self.drain(model)
        elif model is not None and model.phase is Phase.LOADING:
            model.unwanted = True

    def pin(self, name: str, *, pinned: bool) -> None:
        (self._pinned.add if pinned else self._pinned.discard)(name)

    def drain(self, model: Model[R]) -> None:
        """No new leases; it is closed when the last one is given back."""
        if self._current.get(model.name) is model:
            del self._current[model.name]
        if model.phase is Phase.READY:
            model.phase = Phase.DRAINING
            self._close_if_drained(model)

    # What became of it.

    def loaded(self, model: Model[R], value: R, now: float) -> None:
        model.value, model.phase, model.idle_since = value, Phase.READY, now
        self._serve(model)
        if model.unwanted:
            self.drain(model)

    def failed(self, model: Model[R], cause: BaseException) -> None:
        """Tells those who wait, and remembers why until the next request. A `MemoryError` becomes `DoesNotFit`;
        `DoesNotFit` and `NoModel` are told as they are, everything else as `LoadFailed`."""
        self.closed(model)
        if self._current.get(model.name) is model:
            del self._current[model.name]
        error: LlamaDemoError
        if isinstance(cause, MemoryError):
            error = DoesNotFit(model.name, model.plan.device, model.plan.bytes, self.free_bytes(model.plan.device))
        elif isinstance(cause, DoesNotFit | NoModel):
            error = cause
        else:
            error = LoadFailed(model.name, cause)
        self._failures[model.name] = error
        self._tell(model, error)

    def given_up(self, model: Model[R]) -> bool:
        """A load that was ended because nobody wanted it; False where somebody has come meanwhile, who wants it."""
        if model.claims or not model.unwanted:
            return False
        self.closed(model)
        if self._current.get(model.name) is model:
            del self._current[model.name]
        return True

    def closed(self, model: Model[R]) -> None:
        """Its memory is free again."""
        self._counted.remove(model)
        model.value = None

    # What must be done about it.

    def advance(self) -> None:
        """Starts what there is room for, first come first served on each device, and evicts what is idle for it."""
        blocked: set[str] = set()
        for model in self._queue():
            device, needed = model.plan.device, model.plan.bytes
            if device in blocked:
                continue
            free = self.free_bytes(device)
            coming = sum(other.plan.bytes for other in self._on(device) if other.closing)
            idle = self.idle(device)
            sizes = [Idle(other.plan.bytes, other.idle_since) for other in idle]
            for index in choose_evictions(needed, free + coming, sizes) or ():
                self.drain(idle[index])
            if needed <= free:
                model.phase = Phase.LOADING
                self._counted.append(model)
                self.to_load.append(model)
            else:
                blocked.add(device)

    def end_waits(self, now: float) -> None:
        """Fails the requests that have waited too long for memory, each after trying what the last one left."""
        for claim in [claim for model in self._queue() for claim in model.claims]:
            model, plan = claim.model, claim.model.plan
            if model.phase is Phase.WAITING and self._is_late(claim, now):
                holders = dict.fromkeys(other.name for other in self._on(plan.device) if not self._is_idle(other))
                self.withdraw(claim)
                held = MemoryHeld(model.name, plan.device, plan.bytes, tuple(holders), now - claim.since)
                claim.settle(None, held)
                self.advance()

    def end_idleness(self, now: float, idle_seconds: float) -> None:
        for model in list(self._counted):
            if self._is_idle(model) and model.idle_since + idle_seconds <= now:
                self.drain(model)

    def next_time(self, idle_seconds: float | None) -> float | None:
        """When `end_waits` or `end_idleness` will have something to do, if nothing else happens."""
        times = [model.claims[0].deadline for model in self._queue()]
        if idle_seconds is not None:
            times += [model.idle_since + idle_seconds for model in self._counted if self._is_idle(model)]
        return min(times, default=None)

    def close_idle(self, device: str) -> list[Model[R]]:
        """Takes everything idle on the device out of use; the caller must close it, and say `closed`."""
        idle = self.idle(device)
        for model in idle:
            self.drain(model)
            self.to_close.remove(model)
        return idle

    def close_all(self, error: LlamaDemoError) -> list[Model[R]]:
        """Fails those who wait, and gives all residents, leased or not, last loaded first: the caller must close
        them. What is loading or closing already is left to whoever does it."""
        for model in self._current.values():
            self._tell(model, error)
        self._current.clear()
        for model in self.to_load:
            self._counted.remove(model)
        self.to_load.clear()
        residents = [model for model in reversed(self._counted) if model.value is not None and not model.closing]
        for model in residents:
            model.phase, model.closing = Phase.DRAINING, True
        return residents

    # What there is to see.

    def used_bytes(self, device: str) -> int:
        """What is closing counts until its close has returned, and not only until it began."""
        return sum(model.plan.bytes for model in self._on(device))

    def free_bytes(self, device: str) -> int:
        return self._budgets.get(device, 0) - self.used_bytes(device)

    def idle(self, device: str) -> list[Model[R]]:
        return [model for model in self._on(device) if self._is_idle(model)]

    def names(self) -> list[str]:
        return list(dict.fromkeys([*self._current, *(model.name for model in self._counted), *self._failures]))

    def progress(self, model: Model[R], now: float) -> LoadProgress:
        if model.phase is not Phase.WAITING or not model.claims:
            return model.progress
        queue = [other for other in self._queue() if other.plan.device == model.plan.device]
        return LoadProgress("wait", place=queue.index(model) + 1, seconds=now - model.claims[0].since)

    def status(self, name: str, now: float) -> ResidentStatus:
        """Bytes and leases are those of all lives of the name; the state is the newest one's."""
        lives = [model for model in self._counted if model.name == name]
        size, leases = sum(model.plan.bytes for model in lives), sum(model.leases for model in lives)
        model, pinned = self._current.get(name), name in self._pinned
        if model is None and name in self._failures:
            return ResidentStatus(ModelState.FAILED, "", size, leases, error=self._failures[name], pinned=pinned)
        if model is None and not lives:
            return ResidentStatus(ModelState.ABSENT, pinned=pinned)
        model = model or lives[-1]
        if model.phase in {Phase.READY, Phase.DRAINING}:
            return ResidentStatus(ModelState[model.phase.name], model.plan.device, size, leases, pinned=pinned)
        progress = self.progress(model, now)
        state = ModelState.DOWNLOADING if progress.step == "download" else ModelState.LOADING
        return ResidentStatus(state, model.plan.device, size, leases, progress, pinned=pinned)

    # Single decisions, one a method.

    def _joinable(self, name: str) -> Model[R] | None:
        return self._current.get(name)

    def _queue(self) -> list[Model[R]]:
        """Those who wait for memory, in the order of the first request that still waits for each."""
        waiting = [model for model in self._current.values() if model.phase is Phase.WAITING]
        return sorted(waiting, key=lambda model: model.claims[0].number)

    def _on(self, device: str) -> list[Model[R]]:
        return [model for model in self._counted if model.plan.device == device]

    def _is_idle(self, model: Model[R]) -> bool:
        return model.phase is Phase.READY and model.leases == 0 and model.name not in self._pinned

    def _is_drained(self, model: Model[R]) -> bool:
        return model.phase is Phase.DRAINING and model.leases == 0

    def _is_late(self, claim: Claim[R], now: float) -> bool:
        return claim.deadline <= now

    def _close_if_drained(self, model: Model[R]) -> None:
        if self._is_drained(model) and not model.closing:
            model.closing = True
            self.to_close.append(model)

    def _serve(self, model: Model[R]) -> None:
        for claim in model.claims:
            model.leases += 1
            claim.settle(model.value, None)
        model.claims.clear()

    def _tell(self, model: Model[R], error: LlamaDemoError) -> None:
        for claim in model.claims:
            claim.settle(None, error)
        model.claims.clear()

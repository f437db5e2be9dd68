"""The registry's books: which model is counted for which memory, who leases it, who waits, who must go.

Decisions only, on plain values: no lock, no thread, no clock, nothing loaded. What it decides to load or to close is
put into `to_load` and `to_close`; its owner does it, holds a lock around every call, and calls `advance` after changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Generic, TypeVar

from llama_demo.errors import DoesNotFit, LlamaDemoError, LoadFailed, MemoryHeld, NoModel
from llama_demo.eviction import Idle, choose_evictions
from llama_demo.residents import Claim, Model, Phase, Plan
from llama_demo.values import LoadProgress, ModelState, ResidentStatus

R = TypeVar("R")


class Ledger(Generic[R]):
    """Not safe for threads: its owner holds a lock."""

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = dict(budgets)
        self.evictions = 0
        """Models that had to go for others, so far."""
        self._current: dict[str, Model[R]] = {}
        """What a request for the name joins or leases."""
        self._counted: list[Model[R]] = []
        """Those whose bytes count, in order of loading."""
        self._kept: Counter[str] = Counter()
        """What loaded models have brought to stay, bytes by device."""
        self._failures: dict[str, LlamaDemoError] = {}
        self._pinned: set[str] = set()
        self._numbers = count(1)
        self.to_load: list[Model[R]] = []
        self.to_close: list[Model[R]] = []

    # What people do.

    def check_budget(self, name: str, plan: Plan) -> None:
        """Raises `DoesNotFit` for what would not fit if everything else were gone."""
        for device, share in plan.shares.items():
            budget, needed = self._budgets.get(device, 0), share + max(plan.kept_bytes, self._kept[device])
            if needed > budget:
                raise DoesNotFit(name, device, needed, budget)

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
        """No new leases, nor of what is built on it; it is closed when the last one is given back."""
        if self._current.get(model.name) is model:
            del self._current[model.name]
        if model.phase is Phase.READY:
            model.phase = Phase.DRAINING
            for other in self._built_on(model):
                self.drain(other)
            self._close_if_drained(model)

    # What became of it.

    def loaded(self, model: Model[R], value: R, now: float) -> None:
        model.value, model.phase, model.idle_since = value, Phase.READY, now
        for device in model.plan.shares:
            self._kept[device] = self.kept_bytes(device)
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
            device, needed = next(iter(model.plan.shares.items()))
            error = DoesNotFit(model.name, device, needed, self.free_bytes(device))
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
            plans = (model.plan, *model.plan.others)
            free = [plan for plan in plans if blocked.isdisjoint(plan.shares)]
            ways = [(plan, victims) for plan in free if (victims := self._evictions(plan)) is not None]
            if ways:
                chosen, victims = min(ways, key=lambda way: self._cost(*way))
                others = tuple(plan for plan in plans if plan is not chosen)
                model.plan = replace(chosen, others=tuple(replace(plan, others=()) for plan in others))
                self.evictions += len(victims)
                for victim in victims:
                    self.drain(victim)
                if self._has_room(chosen):
                    model.phase = Phase.LOADING
                    self._counted.append(model)
                    self.to_load.append(model)
                    continue
            blocked.update(*(plan.shares for plan in ([chosen] if ways else plans)))

    def _evictions(self, plan: Plan) -> list[Model[R]] | None:
        """What must go for `plan`, the least recently used first; None where it is not enough. What is going already
        counts as gone."""
        victims: list[Model[R]] = []
        for device, needed in self._needed(plan).items():
            going = [*filter(self._is_going, self._on(device)), *victims]
            coming = sum(other.plan.shares.get(device, 0) for other in going)
            idle = [model for model in self.idle(device) if model not in victims]
            idle.sort(key=lambda model: not model.plan.base)  # of two as old, what is built on the other goes first
            sizes = [Idle(other.plan.shares[device], self._idle_since(other)) for other in idle]
            chosen = choose_evictions(needed, self.free_bytes(device) + coming, sizes)
            if chosen is None:
                return None
            for index in chosen:
                victims += [one for one in (idle[index], *self._built_on(idle[index])) if one not in victims]
        return victims

    def _cost(self, plan: Plan, victims: Sequence[Model[R]]) -> tuple[bool, float, int]:
        """Less is better: room now, then what was used longest ago evicted, then the fullest device, so that small
        models leave whole devices to large ones."""
        latest = max(map(self._idle_since, victims), default=float("-inf"))
        return not self._has_room(plan), latest, sum(map(self.free_bytes, plan.shares))

    def _has_room(self, plan: Plan) -> bool:
        return all(needed <= self.free_bytes(device) for device, needed in self._needed(plan).items())

    def _needed(self, plan: Plan) -> dict[str, int]:
        """Bytes by device, with what it would bring to stay."""
        more = {device: max(0, plan.kept_bytes - self.kept_bytes(device)) for device in plan.shares}
        return {device: share + more[device] for device, share in plan.shares.items()}

    def end_waits(self, now: float) -> None:
        """Fails the requests that have waited too long for memory, each after trying what the last one left."""
        for claim in [claim for model in self._queue() for claim in model.claims]:
            model, plan = claim.model, claim.model.plan
            if model.phase is Phase.WAITING and self._is_late(claim, now):
                around = [other for device in plan.shares for other in self._on(device)]
                holders = dict.fromkeys(other.name for other in around if not self._is_idle(other))
                self.withdraw(claim)
                held = MemoryHeld(model.name, plan.device, plan.bytes, tuple(holders), now - claim.since)
                claim.settle(None, held)
                self.advance()

    def end_idleness(self, now: float, idle_seconds: float) -> None:
        due = [one for one in self._counted if self._is_idle(one) and self._idle_since(one) + idle_seconds <= now]
        for model in due:
            self.drain(model)

    def next_time(self, idle_seconds: float | None) -> float | None:
        """When `end_waits` or `end_idleness` will have something to do, if nothing else happens."""
        times = [model.claims[0].deadline for model in self._queue()]
        if idle_seconds is not None:
            times += [self._idle_since(model) + idle_seconds for model in self._counted if self._is_idle(model)]
        return min(times, default=None)

    def close_idle(self, plan: Plan) -> list[Model[R]]:
        """Takes everything idle on the plan's devices out of use. The caller must close what it is given, and say
        `closed`, and ask again: what that was built on comes after it."""
        for model in [model for device in plan.shares for model in self.idle(device)]:
            self.drain(model)
        given = [model for model in self.to_close if not plan.shares.keys().isdisjoint(model.plan.shares)]
        self.to_close = [model for model in self.to_close if model not in given]
        return given

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
        return self.kept_bytes(device) + sum(model.plan.shares[device] for model in self._on(device))

    def kept_bytes(self, device: str) -> int:
        """Of these, what models have brought to stay: once for all of them, and still there when they are gone."""
        return max([self._kept[device], *(model.plan.kept_bytes for model in self._on(device))])

    def free_bytes(self, device: str) -> int:
        return self._budgets.get(device, 0) - self.used_bytes(device)

    def idle(self, device: str) -> list[Model[R]]:
        return [model for model in self._on(device) if self._is_idle(model)]

    def names(self) -> list[str]:
        return list(dict.fromkeys([*self._current, *(model.name for model in self._counted), *self._failures]))

    def progress(self, model: Model[R], now: float) -> LoadProgress:
        if model.phase is not Phase.WAITING or not model.claims:
            return model.progress
        queue = [other for other in self._queue() if other.plan.shares.keys() & model.plan.shares.keys()]
        return LoadProgress("wait", place=queue.index(model) + 1, seconds=now - model.claims[0].since)

    def status(self, name: str, now: float) -> ResidentStatus:
        """Bytes and leases are those of all lives of the name; the state is the newest one's."""
        lives = [model for model in self._counted if model.name == name]
        shares: Counter[str] = Counter()
        for life in lives:
            shares.update(life.plan.shares)
        known = ResidentStatus(
            ModelState.ABSENT,
            bytes=shares.total(),
            shares=dict(shares),
            leases=sum(model.leases for model in lives),
            pinned=name in self._pinned,
        )
        model = self._current.get(name)
        if model is None and name in self._failures:
            return replace(known, state=ModelState.FAILED, error=self._failures[name])
        if model is None and not lives:
            return known
        model = model or lives[-1]
        known = replace(known, device=model.plan.device)
        if model.phase in {Phase.READY, Phase.DRAINING}:
            return replace(known, state=ModelState[model.phase.name])
        progress = self.progress(model, now)
        state = ModelState.DOWNLOADING if progress.step == "download" else ModelState.LOADING
        return replace(known, state=state, progress=progress)

    # Single decisions, one a method.

    def _joinable(self, name: str) -> Model[R] | None:
        return self._current.get(name)

    def _queue(self) -> list[Model[R]]:
        """Those who wait for memory, in the order of the first request that still waits for each."""
        waiting = [model for model in self._current.values() if model.phase is Phase.WAITING]
        return sorted(waiting, key=lambda model: model.claims[0].number)

    def _on(self, device: str) -> list[Model[R]]:
        return [model for model in self._counted if device in model.plan.shares]

    def _built_on(self, model: Model[R]) -> list[Model[R]]:
        """What is ready and built on `model`; each holds one lease of it."""
        return [other for other in self._counted if other.plan.base == model.name and other.phase is Phase.READY]

    def _is_idle(self, model: Model[R]) -> bool:
        """Nobody has a lease, but for what is built on it and idle itself."""
        above = self._built_on(model)
        free = model.phase is Phase.READY and model.leases == len(above) and model.name not in self._pinned
        return free and all(map(self._is_idle, above))

    def _idle_since(self, model: Model[R]) -> float:
        """It is in use with what is built on it."""
        return max(one.idle_since for one in (model, *self._built_on(model)))

    def _is_going(self, model: Model[R]) -> bool:
        """Closing, or when what is built on it has closed."""
        above = sum(other.closing and other.plan.base == model.name for other in self._counted)
        return model.closing or (model.phase is Phase.DRAINING and model.leases == above)

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

"""Which models are in memory, who uses them and who waits: leases, one load for many waiters, a byte budget a device.

It knows nothing of engines, files or torch: what a name needs and how it is loaded are passed in. `ledger` decides,
under one short lock; loading and closing happen on the registry's own threads, never under that lock, so a request for
a resident model waits for nobody's load.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

from llama_demo.errors import Closing, LlamaDemoError
from llama_demo.ledger import Ledger
from llama_demo.residents import Claim, Model, Phase, Plan
from llama_demo.values import LoadProgress, ResidentStatus

__all__ = ["Lease", "Plan", "Registry", "Resident", "Ticket"]

_log = logging.getLogger(__name__)


class Resident(Protocol):
    """What a load gives."""

    @property
    def healthy(self) -> bool:
        """False for good once it has died: the next request drops it and loads afresh."""

    def close(self) -> None:
        """Gives the memory back, and returns when it is done."""


R = TypeVar("R", bound=Resident)


class Lease(Generic[R]):
    """One use of a resident model, which stays in memory until all its leases are released."""

    def __init__(self, registry: Registry[R], model: Model[R], value: R) -> None:
        self._registry, self._model = registry, model
        self._released = False
        self.value = value

    def release(self) -> None:
        """Gives the model back; may be called twice, from any thread; never blocks."""
        with self._registry._changing() as (ledger, now):
            if not self._released:
                self._released = True
                ledger.give_back(self._model, now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Ticket(Generic[R]):
    """A request for a lease. Whoever has one takes the lease with `poll` or `wait`, or else calls `cancel`."""

    def __init__(self, registry: Registry[R], claim: Claim[R]) -> None:
        self._registry, self._claim = registry, claim
        self._lease: Lease[R] | None = None
        self._cancelled = False

    def poll(self) -> Lease[R] | None:
        """The lease, the same one each time; None while there is none yet, and after `cancel`. Never blocks.

        Raises `LoadFailed`, `NoModel`, `MemoryHeld`, `DoesNotFit`, `Closing`.
        """
        claim = self._claim
        with self._registry._changing() as (ledger, now):
            ledger.end_waits(now)
            closed = self._registry._closed
            if self._lease is None and claim.value is not None and not closed and not self._cancelled:
                self._lease = Lease(self._registry, claim.model, claim.value)
        if claim.error is not None:
            raise claim.error.with_traceback(None)
        if self._lease is None and closed and not self._cancelled:
            raise Closing()
        return self._lease

    def wait(self, timeout_seconds: float | None = None) -> Lease[R] | None:
        """Blocks until there is a lease; None when the time is up or the ticket was cancelled. Raises as `poll`."""
        self._claim.settled.wait(timeout_seconds)
        return self.poll()

    @property
    def progress(self) -> LoadProgress:
        """Step `wait`, with its place, while others hold the memory; then what the load reports."""
        with self._registry._changing() as (ledger, now):
            return ledger.progress(self._claim.model, now)

    def cancel(self) -> None:
        """Leaves, giving back a lease that was never taken. A load that has begun goes on, for whoever comes next."""
        with self._registry._changing() as (ledger, now):
            if self._lease is not None or self._cancelled:
                return
            self._cancelled = True
            if not self._claim.settled.is_set():
                ledger.withdraw(self._claim)
                self._claim.settled.set()
            elif self._claim.value is not None:
                ledger.give_back(self._claim.model, now)


class Registry(Generic[R]):
    """Every method may be called from any thread; only `lease`, `Ticket.wait` and `close` block."""

    def __init__(
        self,
        *,
        budgets: Mapping[str, int],
        plan: Callable[[str], Plan],
        load: Callable[[str, Plan, Callable[[LoadProgress], None]], R],
        idle_seconds: float | None,
        wait_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budgets` are bytes a device. `plan` and `load` are called without the lock, `load` on a thread of its own
        with the plan that was chosen; its `report` raises `Closing` once the registry closes. What nobody has leased
        for `idle_seconds` is unloaded (None: never); a request waits at most `wait_seconds` for memory of others."""
        self._plan, self._load, self._clock = plan, load, clock
        self._idle_seconds, self._wait_seconds = idle_seconds, wait_seconds
        self._ledger: Ledger[R] = Ledger(budgets)
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._wakes_at = float("inf")
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._keeper = threading.Thread(target=self._keep, name="registry", daemon=True)
        self._keeper.start()

    def request(self, name: str) -> Ticket[R]:
        """Takes a lease of what is resident, joins a load, or starts one; never blocks.

        Raises what `plan` raises, `DoesNotFit` for more than the device's whole budget, and `Closing`.
        """
        plan: Plan | None = None
        while True:
            with self._changing() as (ledger, now):
                if self._closed:
                    raise Closing()
                claim = ledger.claim(name, plan, now, now + self._wait_seconds)
            if claim is None:
                plan = self._plan(name)
                self._ledger.check_budget(name, plan)
            elif claim.value is None or claim.value.healthy:
                return Ticket(self, claim)
            else:
                with self._changing() as (ledger, now):
                    ledger.drain(claim.model)
                    ledger.give_back(claim.model, now)

    @contextmanager
    def lease(self, name: str) -> Iterator[R]:
        """Blocks until the model is resident, and keeps it so for the block. Raises as `request` and `Ticket.poll`."""
        ticket = self.request(name)
        try:
            lease = ticket.wait()
            assert lease is not None, "nobody else has this ticket to cancel it"
            with lease:
                yield lease.value
        finally:
            ticket.cancel()

    def unload(self, name: str) -> None:
        """No new leases; closed when the last one is released. What is still loading serves those who wait and then
        goes, unless somebody asks for it in between; where nobody waits, its load ends at its next report."""
        with self._changing() as (ledger, _):
            ledger.unload(name)

    def pin(self, name: str, *, pinned: bool) -> None:
        """While it is pinned, `name` is unloaded by `unload` alone: neither for another model nor when it is idle."""
        with self._changing() as (ledger, _):
            ledger.pin(name, pinned=pinned)

    def unload_idle(self) -> None:
        """Unloads what nobody has leased for `idle_seconds`; the registry's own thread does so in time."""
        with self._changing() as (ledger, now):
            if self._idle_seconds is not None:
                ledger.end_idleness(now, self._idle_seconds)

    def status(self, name: str) -> ResidentStatus:
        with self._changing() as (ledger, now):
            return ledger.status(name, now)

    def statuses(self) -> dict[str, ResidentStatus]:
        """Of every name that is in memory, on its way there, or failed the last time."""
        with self._changing() as (ledger, now):
            return {name: ledger.status(name, now) for name in ledger.names()}

    def evictions(self) -> int:
        """How many models had to go for others, so far."""
        with self._changing() as (ledger, _):
            return ledger.evictions

    def used_bytes(self, device: str) -> int:
        with self._changing() as (ledger, _):
            return ledger.used_bytes(device)

    def kept_bytes(self, device: str) -> int:
        """Of `used_bytes`, what models have brought to stay, as their plans say."""
        with self._changing() as (ledger, _):
            return ledger.kept_bytes(device)

    def close(self, join_seconds: float = 30.0) -> None:
        """Refuses requests, fails those who wait with `Closing`, closes what is resident (leased or not) in reverse
        order of loading, and joins the threads, each for at most `join_seconds`. A load cannot be interrupted, only
        refused its next report; what it still gives is closed at once."""
        with self._changing() as (ledger, _):
            self._closed = True
            residents = ledger.close_all(Closing())
            self._wake.notify()
        for model in residents:
            self._run_close(model)
        self._keeper.join(join_seconds)
        for thread in self._threads:
            thread.join(join_seconds)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Ledger[R], float]]:
        """Holds the lock; afterwards whoever waits for memory gets what has become free, and the registry's thread is
        woken if there is work for it now or sooner than it knew."""
        with self._lock:
            try:
                yield self._ledger, self._clock()
            finally:
                self._ledger.advance()
                next_time = self._ledger.next_time(self._idle_seconds)
                sooner = next_time is not None and next_time < self._wakes_at
                if self._ledger.to_load or self._ledger.to_close or sooner:
                    self._wake.notify()

    def _keep(self) -> None:
        """The registry's own thread: it watches the clock, and starts a thread for each load and each closing."""
        while True:
            with self._lock:
                loads, closings, closed = self._wait_for_work()
            for model in closings:
                self._run_apart(f"close {model.name}", partial(self._run_close, model))
            for model in loads:
                self._run_apart(f"load {model.name}", partial(self._run_load, model))
            if closed and not closings:
                return

    def _wait_for_work(self) -> tuple[list[Model[R]], list[Model[R]], bool]:
        """Returns what to load, what to close, and whether the registry has closed; all may be nothing."""
        ledger, now = self._ledger, self._clock()
        ledger.end_waits(now)
        if self._idle_seconds is not None:
            ledger.end_idleness(now, self._idle_seconds)
        ledger.advance()
        if not (ledger.to_load or ledger.to_close or self._closed):
            next_time = ledger.next_time(self._idle_seconds)
            self._wakes_at = float("inf") if next_time is None else next_time
            self._wake.wait(min(max(0.0, self._wakes_at - now), threading.TIMEOUT_MAX))
        loads, ledger.to_load = ledger.to_load, []
        closings, ledger.to_close = ledger.to_close, []
        return loads, closings, self._closed

    def _run_apart(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads = [*(thread for thread in self._threads if thread.is_alive()), thread]
        try:
            thread.start()
        except RuntimeError:
            _log.warning("no thread to be had for: %s", name)
            self._threads.remove(thread)
            work()

    def _run_load(self, model: Model[R]) -> None:
        outcome = self._attempt(model)
        if isinstance(outcome, MemoryError):
            while idle := self._take_idle(model.plan):
                for other in idle:
                    self._run_close(other)
            outcome = self._attempt(model)
        while isinstance(outcome, _Unwanted):
            with self._changing() as (ledger, _):
                if ledger.given_up(model):
                    return
            outcome = self._attempt(model)
        with self._changing() as (ledger, now):
            too_late = self._closed and not isinstance(outcome, BaseException)
            if isinstance(outcome, BaseException):
                ledger.failed(model, outcome)
            elif self._closed:
                model.value, model.phase, model.closing = outcome, Phase.DRAINING, True
            else:
                ledger.loaded(model, outcome, now)
        if too_late:
            self._run_close(model)

    def _take_idle(self, plan: Plan) -> list[Model[R]]:
        with self._changing() as (ledger, _):
            return ledger.close_idle(plan)

    def _attempt(self, model: Model[R]) -> R | BaseException:
        if self._closed:
            return Closing()
        try:
            return self._load(model.name, model.plan, partial(self._report, model))
        except _Unwanted as error:
            return error
        except BaseException as error:  # noqa: BLE001 whatever it is, those who wait must hear of it
            _log.warning("loading %s failed", model.name, exc_info=not isinstance(error, LlamaDemoError))
            _forget_locals(error)
            return error

    def _report(self, model: Model[R], progress: LoadProgress) -> None:
        if self._closed:
            raise Closing()
        if model.unwanted and not model.claims:
            raise _Unwanted()
        model.progress = progress

    def _run_close(self, model: Model[R]) -> None:
        try:
            if model.value is not None:
                model.value.close()
        except BaseException:  # noqa: BLE001 the thread has more to do: the memory must become free
            _log.exception("closing %s failed: its memory is counted as free", model.name)
        with self._changing() as (ledger, _):
            ledger.closed(model)


class _Unwanted(Exception):
    """Ends a load that was asked to go and that nobody waits for."""


def _forget_locals(error: BaseException | None) -> None:
    """A failure that is kept for the status would keep what was half loaded, through the frames it came through."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__

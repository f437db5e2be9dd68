"""Many threads against the registry: whatever the order of events, its promises hold, and breaking one is noticed.

Eight threads lease, release, cancel, unload and let loads succeed or fail, over two pretend devices. Every load and
every closing is held by the test until a step lets it go. A schedule is a list of rounds; the steps of a round start
together at a barrier, and the next round starts when the registry rests: everything is held, done or waiting.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llama_demo.errors import Closing, DoesNotFit, LoadFailed, MemoryHeld
from llama_demo.ledger import Ledger
from llama_demo.registry import Lease, Plan, Registry, Ticket
from llama_demo.residents import Claim, Model
from llama_demo.values import LoadProgress, ModelState

THREADS = 8
INTERLEAVINGS = 1_000
PATIENCE_SECONDS = 20.0
"""For what takes microseconds: whoever has not come back by then never will."""
FAULT_PATIENCE_SECONDS = 3.0
WAIT_SECONDS = 30.0
IDLE_SECONDS = 50.0
BUDGETS = {"cpu": 10, "gpu": 10}
PLANS = {
    "small": Plan("cpu", 2, kept_bytes=1),
    "half": Plan("cpu", 4, kept_bytes=1),
    "large": Plan("cpu", 8),
    "fast": Plan("gpu", 6),
    "wide": Plan("gpu", 7),
}

Step = tuple[str, str, int]
"""What to do, for which model, and a number: which of the held ones to let go, or by how much the clock moves."""
Round = list[Step]


@dataclass(eq=False)
class Pretend:
    """A resident; `users` are the leases that the threads hold; it is `let_go` once somebody unloaded it."""

    name: str
    world: World
    users: int = 0
    healthy: bool = True
    let_go: bool = False
    closing: bool = False

    def close(self) -> None:
        self.world.on_close(self)


@dataclass(eq=False)
class Held:
    what: str
    name: str
    gate: threading.Event = field(default_factory=threading.Event)
    outcome: str = "works"


class World:
    """The pretend devices, and the judge: it writes down every broken promise."""

    def __init__(self, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self.changed = threading.Condition()
        self.broken: list[str] = []
        self.now = 0.0
        self.running = 0
        """Jobs of the registry that are neither held nor done; and how many it has begun in all."""
        self.given = 0
        self.held: list[Held] = []
        self.gates_open = False
        self.ending = False
        self.bytes, self.kept = dict.fromkeys(BUDGETS, 0), dict.fromkeys(BUDGETS, 0)
        self.loading: list[str] = []
        self.unwanted: set[str] = set()
        self.residents: list[Pretend] = []

    def load(self, name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> Pretend:
        plan = PLANS[name]
        report(LoadProgress("load", 0, plan.bytes))  # which ends a load that nobody wants any more
        with self.changed:
            self.judge(name not in self.loading, f"two loads of {name} at once")
            self.loading.append(name)
            self.bytes[plan.device] += plan.bytes
            taken = self.bytes[plan.device] + max(self.kept[plan.device], plan.kept_bytes)
            self.judge(taken <= BUDGETS[plan.device], f"over the budget of {plan.device}")
        outcome = self.hold("load", name)
        with self.changed:
            self.loading.remove(name)
            if outcome == "works":
                self.kept[plan.device] = max(self.kept[plan.device], plan.kept_bytes)
                self.residents.append(Pretend(name, self, let_go=name in self.unwanted))
                self.unwanted.discard(name)
                return self.residents[-1]
            self.bytes[plan.device] -= plan.bytes
        raise MemoryError if outcome == "memory" else OSError("the disk is gone")

    def on_close(self, resident: Pretend) -> None:
        with self.changed:
            self.judge(not resident.closing, f"{resident.name} was closed twice")
            self.judge(resident.users == 0 or self.ending, f"{resident.name} was closed under a lease")
            resident.closing = True
        self.hold("close", resident.name)
        with self.changed:
            self.judge(resident.users == 0 or self.ending, f"{resident.name} was leased while it was closed")
            self.residents.remove(resident)
            self.bytes[PLANS[resident.name].device] -= PLANS[resident.name].bytes

    def let_go(self, names: list[str]) -> None:
        """These were unloaded: the registry may drain them under their users, and what is loading once it is there."""
        self.unwanted.update(names)
        for resident in self.residents:
            resident.let_go |= resident.name in names

    def judge(self, kept: bool, promise: str) -> None:
        if not kept:
            self.broken.append(promise)

    def hold(self, what: str, name: str) -> str:
        held = Held(what, name)
        with self.changed:
            if self.gates_open:
                return held.outcome
            self.held.append(held)
            self.running -= 1
            self.changed.notify_all()
        held.gate.wait()
        return held.outcome

    def release_held(self, what: str, number: int, outcome: str) -> None:
        with self.changed:
            candidates = [held for held in self.held if held.what == what]
            if candidates:
                self._open(candidates[number % len(candidates)], outcome)

    def open_all(self) -> None:
        with self.changed:
            self.gates_open = True
            for held in list(self.held):
                self._open(held, "works")

    def _open(self, held: Held, outcome: str) -> None:
        self.held.remove(held)
        self.running += 1
        held.outcome = outcome
        held.gate.set()

    def jobs_given(self, number: int) -> None:
        with self.changed:
            self.running += number
            self.given += number
            self.changed.notify_all()

    def job_done(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            self.judge(self.changed.wait_for(condition, self.patience_seconds), "the registry's threads hang")


class WatchedRegistry(Registry[Pretend]):
    """The registry itself; it only tells the world when its work begins and ends."""

    def __init__(self, world: World, ledger: type[Ledger[Pretend]]) -> None:
        self.world = world
        super().__init__(
            budgets=BUDGETS,
            plan=PLANS.__getitem__,
            load=world.load,
            idle_seconds=IDLE_SECONDS,
            wait_seconds=WAIT_SECONDS,
            clock=lambda: world.now,
        )
        with self._lock:
            self._ledger = ledger(BUDGETS)

    def _wait_for_work(self) -> tuple[list[Model[Pretend]], list[Model[Pretend]], bool]:
        loads, closings, closed = super()._wait_for_work()
        self.world.jobs_given(len(loads) + len(closings))
        return loads, closings, closed

    def _run_apart(self, name: str, work: Callable[[], None]) -> None:
        def watched() -> None:
            try:
                work()
            finally:
                self.world.job_done()

        super()._run_apart(name, watched)

    def rest(self) -> None:
        """Returns when nothing moves any more but by the test's hand."""
        world = self.world
        while not world.broken:
            given = world.given
            world.wait_for(lambda: world.running == 0)
            if not self._lock.acquire(timeout=world.patience_seconds):
                world.judge(False, "the lock is never let go: every request waits")
                return
            work = [*self._ledger.to_load, *self._ledger.to_close]
            resting = not work and world.running == 0
            self._lock.release()
            if resting:
                return
            if work:
                world.wait_for(lambda given=given: world.given != given)  # type: ignore[misc]


class Visitor(threading.Thread):
    """One of the threads: it has at most one ticket or lease at a time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        self.ticket: Ticket[Pretend] | None = None
        self.asked_at = 0.0
        self.lease: Lease[Pretend] | None = None
        self.name_asked = ""

    def run(self) -> None:
        while (work := self.todo.get()) is not None:
            try:
                work()
                self.done.put(None)
            except BaseException as error:  # noqa: BLE001 it is the test's to see
                self.done.put(error)

    def take(self, world: World, lease: Lease[Pretend] | None) -> None:
        if lease is not None:
            with world.changed:
                world.judge(not lease.value.closing or world.ending, f"{lease.value.name} was closed under a lease")
                lease.value.users += 1
            self.lease, self.ticket = lease, None

    def give_back(self, world: World) -> None:
        if self.lease is not None:
            with world.changed:
                self.lease.value.users -= 1
            self.lease.release()
            self.lease = None


class Play:
    """One schedule on a fresh registry."""

    def __init__(
        self,
        visitors: list[Visitor],
        registry: type[WatchedRegistry] = WatchedRegistry,
        ledger: type[Ledger[Pretend]] = Ledger,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.world = World(patience_seconds)
        self.registry = registry(self.world, ledger)
        self.visitors = visitors
        for visitor in visitors:
            visitor.ticket = visitor.lease = None

    def run(self, rounds: list[Round], close_at_once: bool) -> list[str]:
        for steps in rounds:
            self._round(steps)
            if self.world.broken:
                break
        if not self.world.broken:
            self._all_go_home(close_at_once)
        self._clear_up()
        return self.world.broken

    def _round(self, steps: Round) -> None:
        barrier = threading.Barrier(len(steps))
        alone = len(steps) == 1

        def take_part(visitor: Visitor, step: Step) -> None:
            barrier.wait()
            self._step(visitor, step, alone)

        pairs = zip(self.visitors, steps, strict=False)
        self._together([partial(take_part, visitor, step) for visitor, step in pairs])
        self.registry.rest()
        self.world.let_go([name for what, name, _ in steps if what == "unload"])
        if not self.world.broken:
            self._judge_at_rest()
        self.visitors.append(self.visitors.pop(0))

    def _together(self, work: list[Callable[[], None]]) -> None:
        busy = list(zip(self.visitors, work, strict=False))
        for visitor, task in busy:
            visitor.todo.put(task)
        for visitor, _ in busy:
            try:
                error = visitor.done.get(timeout=self.world.patience_seconds)
            except Empty:
                self.world.judge(False, "a visitor is stuck: a deadlock, or a wait without end")
                return
            self.world.judge(error is None, f"unexpected: {error!r}")

    def _step(self, visitor: Visitor, step: Step, alone: bool) -> None:
        what, name, number = step
        world = self.world
        if what == "lease":
            self._lease(visitor, name, alone)
        elif what == "collect":
            self._collect(visitor)
        elif what == "release":
            visitor.give_back(world)
        elif what == "cancel" and visitor.ticket is not None:
            visitor.ticket.cancel()
            visitor.ticket = None
        elif what == "unload":
            self.registry.unload(name)
        elif what == "die":
            for resident in [resident for resident in list(world.residents) if resident.name == name]:
                resident.healthy = False
        elif what == "time":
            with world.changed:
                world.now += number * 10.0
            self.registry.unload_idle()
        elif what in {"works", "fails", "memory"}:
            world.release_held("load", number, what)
        elif what == "closed":
            world.release_held("close", number, "works")

    def _lease(self, visitor: Visitor, name: str, alone: bool) -> None:
        if visitor.ticket is not None or visitor.lease is not None:
            return
        sound = all(resident.healthy for resident in list(self.world.residents) if resident.name == name)
        resident = alone and sound and self.registry.status(name).state is ModelState.READY
        visitor.ticket, visitor.name_asked = self.registry.request(name), name
        visitor.asked_at = self.world.now
        self._collect(visitor)
        self.world.judge(not resident or visitor.ticket is None, f"a request for {name}, resident, had to wait")

    def _collect(self, visitor: Visitor) -> None:
        if visitor.ticket is None:
            return
        try:
            visitor.take(self.world, visitor.ticket.poll())
        except (LoadFailed, MemoryHeld, DoesNotFit) as error:
            self.world.judge(not isinstance(error, MemoryHeld) or bool(error.holders), "memory held by nobody")
            visitor.ticket = None

    def _judge_at_rest(self) -> None:
        world, now = self.world, self.world.now
        for visitor in self.visitors:
            if visitor.lease is not None:
                value = visitor.lease.value
                kept = value.let_go or not value.healthy or self.registry.status(value.name).state is ModelState.READY
                world.judge(kept, f"{value.name} was evicted under a lease")
            if visitor.ticket is not None:
                late = now >= visitor.asked_at + WAIT_SECONDS
                self._collect(visitor)
                waits = visitor.ticket is not None and visitor.ticket.progress.step == "wait"
                world.judge(not (late and waits), f"the wait for {visitor.name_asked} has no end")
        self.registry.rest()  # whoever has just given up waiting has made place for the next, whose load begins
        for device, budget in BUDGETS.items():
            used = self.registry.used_bytes(device)
            world.judge(used <= budget, f"over the budget of {device} by its own books")
            there = world.bytes[device] + world.kept[device]
            world.judge(there <= used, f"more is on {device} than is counted")

    def _all_go_home(self, close_at_once: bool) -> None:
        """Whoever waits is served or told, without the clock's help, once those who have a lease give it back."""
        self.world.ending = close_at_once
        closer = threading.Thread(target=self.registry.close, daemon=True)
        if close_at_once:
            closer.start()
        self.world.open_all()
        self._together([partial(self._go_home, visitor) for visitor in self.visitors])
        if not self.world.broken and not close_at_once:
            self.registry.rest()
            leases = {name: status.leases for name, status in self.registry.statuses().items() if status.leases}
            self.world.judge(not leases, f"leases that nobody holds: {leases}")
            closer.start()
        if not self.world.broken:
            closer.join(self.world.patience_seconds)
            self.world.judge(not closer.is_alive(), "close does not come back")
            self.world.judge(not self.world.residents and not any(self.world.bytes.values()), "something was left open")

    def _go_home(self, visitor: Visitor) -> None:
        visitor.give_back(self.world)
        if visitor.ticket is not None:
            try:
                lease = visitor.ticket.wait(self.world.patience_seconds / 2)
            except (LoadFailed, MemoryHeld, DoesNotFit, Closing):
                return
            self.world.judge(lease is not None, f"the wait for {visitor.name_asked} has no end")
            visitor.take(self.world, lease)
            visitor.give_back(self.world)

    def _clear_up(self) -> None:
        """After a broken promise too, so that its threads end."""
        if self.world.broken:
            self.world.open_all()
            threading.Thread(target=self.registry.close, daemon=True).start()


STEPS = ["lease"] * 6 + ["collect", "release", "release", "cancel", "unload", "die", "time"] + ["works"] * 3 + ["fails"]
STEPS += ["memory", "closed", "closed", "closed"]
step = st.tuples(st.sampled_from(STEPS), st.sampled_from(list(PLANS)), st.integers(0, 3))
schedule = st.lists(
    st.one_of(st.lists(step, min_size=1, max_size=1), st.lists(step, min_size=2, max_size=THREADS)),
    min_size=10,
    max_size=25,
)


@contextmanager
def eight_visitors() -> Iterator[list[Visitor]]:
    visitors = [Visitor() for _ in range(THREADS)]
    for visitor in visitors:
        visitor.start()
    yield visitors
    for visitor in visitors:
        visitor.todo.put(None)


@pytest.fixture(autouse=True)
def no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of failed loads are on purpose."""
    caplog.set_level(logging.CRITICAL, "llama_demo.registry")


QUIETLY = settings(max_examples=INTERLEAVINGS, database=None, suppress_health_check=list(HealthCheck), print_blob=True)


def test_a_thousand_interleavings_of_eight_threads_break_no_promise() -> None:
    """Never over budget, never an eviction under a lease, never a deadlock, never two loads of one model, never a
    request for a resident model waiting for another's load, never a wait without end."""
    played = 0
    with eight_visitors() as visitors:

        @QUIETLY
        @given(schedule, st.booleans())
        def play(rounds: list[Round], close_at_once: bool) -> None:
            nonlocal played
            played += 1
            assert Play(visitors).run(rounds, close_at_once) == []

        play()
    assert played >= INTERLEAVINGS


class Caught(Exception):
    """Enough: no more schedules are needed."""


def broken_promises(registry: type[WatchedRegistry] = WatchedRegistry, ledger: type[Ledger[Pretend]] = Ledger) -> str:
    """What the same schedules find in a registry with a fault: the first broken promises, or nothing."""
    found: list[str] = []
    with eight_visitors() as visitors:

        @settings(QUIETLY, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False)
        @given(schedule, st.booleans())
        def play(rounds: list[Round], close_at_once: bool) -> None:
            if not found:
                found.extend(Play(visitors, registry, ledger, FAULT_PATIENCE_SECONDS).run(rounds, close_at_once))
            if found:
                raise Caught

        with suppress(Caught):
            play()
    return "; ".join(found)


def test_a_ledger_that_closes_under_a_lease_is_caught() -> None:
    """Fault 1: what is unloaded or evicted is closed at once, without waiting for its last lease."""

    class ClosesUnderLease(Ledger[Pretend]):
        def _is_drained(self, model: Model[Pretend]) -> bool:
            return super()._is_drained(model) or model.phase.name == "DRAINING"

    assert "closed under a lease" in broken_promises(ledger=ClosesUnderLease)


def test_a_ledger_that_evicts_what_is_leased_is_caught() -> None:
    """Fault 2: a model counts as idle while somebody leases it."""

    class EvictsLeased(Ledger[Pretend]):
        def _is_idle(self, model: Model[Pretend]) -> bool:
            return model.value is not None and not model.closing and self._joinable(model.name) is model

    assert "evicted under a lease" in broken_promises(ledger=EvictsLeased)


def test_a_ledger_that_counts_closing_memory_as_free_is_caught() -> None:
    """Fault 3: the bytes of what is evicted are given away when its closing begins, not when it has ended."""

    class CountsTooEarly(Ledger[Pretend]):
        def free_bytes(self, device: str) -> int:
            return super().free_bytes(device) + sum(model.plan.bytes for model in self._on(device) if model.closing)

    assert "over the budget" in broken_promises(ledger=CountsTooEarly)


def test_a_ledger_that_forgets_a_load_under_way_is_caught() -> None:
    """Fault 4: a request joins only what is resident, and so starts a second load of the same model."""

    class ForgetsLoads(Ledger[Pretend]):
        def _joinable(self, name: str) -> Model[Pretend] | None:
            model = super()._joinable(name)
            return None if model is not None and model in self._counted and model.value is None else model

    assert "two loads of" in broken_promises(ledger=ForgetsLoads)


def test_a_registry_that_loads_under_its_lock_is_caught() -> None:
    """Fault 5: the lock is held while a model loads, so that everybody waits for it."""

    class LoadsUnderLock(WatchedRegistry):
        def _attempt(self, model: Model[Pretend]) -> Pretend | BaseException:
            with self._lock:
                return super()._attempt(model)

    assert "every request waits" in broken_promises(LoadsUnderLock)


def test_a_ledger_that_tells_only_the_first_waiter_of_a_failure_is_caught() -> None:
    """Fault 6: when a load fails, the others who wait for it are never told."""

    class TellsOne(Ledger[Pretend]):
        def _tell(self, model: Model[Pretend], error: Any) -> None:
            for claim in model.claims[:1]:
                claim.settle(None, error)
            del model.claims[:1]

    assert "has no end" in broken_promises(ledger=TellsOne)


def test_a_ledger_that_serves_those_who_have_left_is_caught() -> None:
    """Fault 7: a cancelled request is handed a lease all the same, and nobody ever gives it back."""

    class ServesTheAbsent(Ledger[Pretend]):
        def withdraw(self, claim: Claim[Pretend]) -> None:
            """Keeps the place."""

    found = broken_promises(ledger=ServesTheAbsent)
    assert "leases that nobody holds" in found or "has no end" in found


def test_a_ledger_that_never_ends_a_wait_is_caught() -> None:
    """Fault 8: a request may wait for memory for ever."""

    class WaitsForEver(Ledger[Pretend]):
        def _is_late(self, claim: Claim[Pretend], now: float) -> bool:
            return super()._is_late(claim, now) and not claim.model.claims

    assert "has no end" in broken_promises(ledger=WaitsForEver)

"""The registry's behaviour, one promise a test; `test_registry_properties.py` holds it to them under many threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from llama_demo.errors import (
    BadCheckpoint,
    Closing,
    DoesNotFit,
    LoadFailed,
    MemoryHeld,
    NoModel,
    UnknownModel,
)
from llama_demo.eviction import Idle, choose_evictions
from llama_demo.reasons import Reason
from llama_demo.registry import Lease, Plan, Registry, Ticket
from llama_demo.values import LoadProgress, ModelState
from tests.waiting import PATIENCE_SECONDS

WAIT_SECONDS = 30.0
IDLE_SECONDS = 60.0


@dataclass(eq=False)
class Pretend:
    """A resident whose closing can be held."""

    name: str
    machine: Machine
    healthy: bool = True
    base: Lease[Pretend] | None = None
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.machine.enter(f"close {self.name}")
        self.machine.closings.append(self.name)
        if self.base is not None:
            self.base.release()
        self.closed.set()
        error = self.machine.close_errors.pop(self.name, None)
        if error is not None:
            raise error


class Machine:
    """A pretend machine: `hold("load a")` stops what is named there until `let_go`; `errors` are raised by loads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.plans = {"a": Plan("cpu", 6), "b": Plan("cpu", 4), "c": Plan("cpu", 8), "tiny": Plan("cpu", 1)}
        self.plans |= {"d": Plan("gpu", 5), "huge": Plan("cpu", 11), "on a": Plan("cpu", 1, base="a")}
        self.request: Callable[[str], Ticket[Pretend]] | None = None
        self.errors: dict[str, list[BaseException]] = {}
        self.close_errors: dict[str, BaseException] = {}
        self.loads: list[str] = []
        self.closings: list[str] = []
        self.reports: dict[str, Callable[[LoadProgress], None]] = {}
        self._gates: dict[str, threading.Event] = {}
        self._arrived: dict[str, threading.Event] = {}

    def plan(self, name: str) -> Plan:
        if name not in self.plans:
            raise UnknownModel(name, "a")
        return self.plans[name]

    def load(self, name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> Pretend:
        self.loads.append(name)
        self.reports[name] = report
        self.enter(f"load {name}")
        report(LoadProgress("load"))
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        base = taken(self.request(plan.base)) if plan.base and self.request else None
        return Pretend(name, self, base=base)

    def hold(self, *places: str) -> None:
        for place in places:
            self._gates[place], self._arrived[place] = threading.Event(), threading.Event()

    def enter(self, place: str) -> None:
        if place in self._gates:
            self._arrived[place].set()
            self._gates[place].wait()

    def reached(self, place: str) -> bool:
        return self._arrived[place].wait(PATIENCE_SECONDS)

    def let_go(self, *places: str) -> None:
        for place in places or tuple(self._gates):
            self._gates[place].set()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def build(
    machine: Machine, idle_seconds: float | None = IDLE_SECONDS, wait_seconds: float = WAIT_SECONDS
) -> Registry[Pretend]:
    registry = Registry(
        budgets={"cpu": 10, "gpu": 10},
        plan=machine.plan,
        load=machine.load,
        idle_seconds=idle_seconds,
        wait_seconds=wait_seconds,
        clock=lambda: machine.now,
    )
    machine.request = registry.request
    return registry


@pytest.fixture
def registry(machine: Machine) -> Iterator[Registry[Pretend]]:
    registry = build(machine)
    yield registry
    machine.let_go()
    registry.close()


def taken(ticket: Ticket[Pretend]) -> Lease[Pretend]:
    lease = ticket.wait(PATIENCE_SECONDS)
    assert lease is not None
    return lease


def use_once(registry: Registry[Pretend], *names: str) -> list[Pretend]:
    """Each is resident and idle afterwards."""
    residents = []
    for name in names:
        with registry.lease(name) as value:
            residents.append(value)
    return residents


# Eviction as arithmetic.


@pytest.mark.parametrize(
    ("needed", "free", "expected"),
    [(3, 3, []), (4, 3, [1]), (5, 3, [1]), (6, 3, [1, 2]), (9, 3, [1, 2, 0]), (10, 3, None), (0, 0, [])],
)
def test_the_least_recently_used_go_first_and_none_when_all_are_not_enough(
    needed: int, free: int, expected: list[int] | None
) -> None:
    idle = [Idle(3, since=9.0), Idle(2, since=1.0), Idle(1, since=5.0)]
    assert choose_evictions(needed, free, idle) == expected


def test_a_plan_of_negative_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        Plan("cpu", -1)


# Leases and loads.


def test_a_lease_gives_the_loaded_model_and_a_second_one_the_same_without_a_load(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    with registry.lease("a") as first, registry.lease("a") as second:
        assert first is second
        assert registry.status("a").leases == 2
    assert machine.loads == ["a"]
    assert registry.status("a").leases == 0


def test_one_load_serves_all_who_wait_and_tells_all_its_progress(machine: Machine, registry: Registry[Pretend]) -> None:
    machine.hold("load a")
    tickets = [registry.request("a") for _ in range(5)]
    assert machine.reached("load a")
    machine.reports["a"](LoadProgress("download", 10, 100))
    assert {ticket.progress for ticket in tickets} == {LoadProgress("download", 10, 100)}
    assert registry.status("a").state is ModelState.DOWNLOADING
    assert [ticket.poll() for ticket in tickets] == [None] * 5
    machine.let_go("load a")
    assert len({taken(ticket).value for ticket in tickets}) == 1
    assert machine.loads == ["a"]
    assert registry.status("a").leases == 5


def test_a_request_for_a_resident_model_is_served_while_another_loads_and_another_closes(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "a", "d")
    machine.hold("load b", "close d")
    registry.request("b")
    registry.unload("d")
    assert machine.reached("load b")
    assert machine.reached("close d")
    assert registry.request("a").poll() is not None


def test_a_lease_may_be_released_twice_and_counts_once(registry: Registry[Pretend]) -> None:
    first, second = taken(registry.request("a")), taken(registry.request("a"))
    first.release()
    first.release()
    assert registry.status("a").leases == 1
    with second:
        pass
    assert registry.status("a").leases == 0


def test_polling_again_gives_the_same_lease(registry: Registry[Pretend]) -> None:
    ticket = registry.request("a")
    assert taken(ticket) is ticket.poll()
    assert registry.status("a").leases == 1


def test_a_wait_ends_with_nothing_when_its_time_is_up(machine: Machine, registry: Registry[Pretend]) -> None:
    machine.hold("load a")
    assert registry.request("a").wait(0.0) is None


def test_what_plan_raises_is_raised_by_the_request(registry: Registry[Pretend]) -> None:
    with pytest.raises(UnknownModel, match="nearest='a'"):
        registry.request("aa")
    assert registry.statuses() == {}


# Memory.


def test_the_least_recently_released_idle_model_is_evicted_for_a_new_one(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    lease = taken(registry.request("a"))
    machine.now = 1.0
    b = use_once(registry, "b")[0]
    machine.now = 2.0
    lease.release()
    assert use_once(registry, "tiny")[0].name == "tiny"
    assert b.closed.is_set()
    assert set(registry.statuses()) == {"a", "tiny"}


def test_a_model_that_is_leased_is_not_evicted_and_the_request_waits(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    lease = taken(registry.request("a"))
    ticket = registry.request("c")
    assert ticket.poll() is None
    assert ticket.progress == LoadProgress("wait", place=1)
    assert registry.status("a").state is ModelState.READY
    lease.release()
    assert taken(ticket).value.name == "c"
    assert machine.closings == ["a"]


def test_what_is_idle_stays_when_its_memory_would_not_be_enough(machine: Machine, registry: Registry[Pretend]) -> None:
    use_once(registry, "b")
    machine.plans["e"] = Plan("cpu", 10)
    lease = taken(registry.request("tiny"))
    registry.request("e")
    assert registry.request("b").poll() is not None
    lease.release()


def test_those_who_wait_for_memory_have_a_place_each_and_are_served_in_order(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    lease = taken(registry.request("a"))
    first, second, third = registry.request("c"), registry.request("b"), registry.request("tiny")
    assert [ticket.progress.place for ticket in (first, second, third)] == [1, 2, 3]
    first.cancel()
    assert taken(second).value.name == "b"
    assert third.progress.place == 1
    assert registry.request("d").progress.step == "load", "another device has its own queue"
    lease.release()
    taken(third)


def test_what_is_idle_goes_with_what_is_built_on_it_where_both_are_not_used(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "on a")
    assert registry.status("a").leases == 1
    assert taken(registry.request("c")).value.name == "c"
    assert machine.closings == ["on a", "a"]
    assert registry.evictions() == 2


def test_what_is_built_on_it_keeps_a_model_that_is_not_enough_or_in_use(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "a")
    machine.now = 1
    use_once(registry, "tiny")
    machine.now = 2
    use_once(registry, "on a")
    use_once(registry, "b")
    assert sorted(machine.closings) == ["on a", "tiny"], "the least recently used, and no more than is enough"
    user = taken(registry.request("on a"))
    waiting = registry.request("c")
    assert waiting.poll() is None
    assert registry.status("a").state is ModelState.READY
    user.release()


def test_out_of_memory_takes_what_is_idle_with_what_is_built_on_it(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "on a")
    machine.errors["tiny"] = [MemoryError()]
    assert taken(registry.request("tiny")).value.name == "tiny"
    assert machine.closings == ["on a", "a"]


def test_a_model_is_in_use_with_what_is_built_on_it(machine: Machine, registry: Registry[Pretend]) -> None:
    (above,) = use_once(registry, "on a")
    base = above.base
    assert base is not None
    machine.now = IDLE_SECONDS - 1
    use_once(registry, "on a")
    machine.now = IDLE_SECONDS + 1
    registry.unload_idle()
    assert not above.closed.is_set()
    assert registry.status("a").state is registry.status("on a").state is ModelState.READY
    machine.now = 2 * IDLE_SECONDS
    registry.unload_idle()
    assert base.value.closed.wait(PATIENCE_SECONDS)
    assert machine.closings == ["on a", "a"]


def test_a_pinned_model_keeps_what_it_is_built_on_and_goes_with_it_when_that_is_unloaded(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    (above,) = use_once(registry, "on a")
    registry.pin("on a", pinned=True)
    assert registry.request("c").poll() is None
    assert registry.status("a").state is ModelState.READY
    registry.unload("a")
    assert above.closed.wait(PATIENCE_SECONDS)
    assert machine.closings[0] == "on a"


def test_a_wait_for_memory_ends_after_its_time_and_names_who_holds_it(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "tiny")
    taken(registry.request("a"))
    ticket = registry.request("c")
    machine.now = WAIT_SECONDS - 0.5
    assert ticket.poll() is None
    assert ticket.progress == LoadProgress("wait", place=1, seconds=WAIT_SECONDS - 0.5)
    machine.now = WAIT_SECONDS
    with pytest.raises(MemoryHeld) as held:
        ticket.poll()
    assert held.value.data() == {
        "name": "c",
        "device": "cpu",
        "needed_bytes": 8,
        "holders": ("a",),
        "waited_seconds": WAIT_SECONDS,
    }
    assert registry.status("c").state is ModelState.ABSENT


def test_who_joins_a_wait_has_a_whole_wait_of_its_own_but_the_place_of_its_request(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    taken(registry.request("a"))
    early = registry.request("c")
    machine.now = 10.0
    other = registry.request("b")
    other.cancel()
    machine.plans["e"] = Plan("cpu", 7)
    other = registry.request("e")
    machine.now = 20.0
    late = registry.request("c")
    assert other.progress.place == 2
    machine.now = WAIT_SECONDS
    with pytest.raises(MemoryHeld):
        early.poll()
    assert late.poll() is None
    assert other.progress.place == 1
    assert late.progress.place == 2


def test_a_blocked_waiter_is_told_in_time_by_the_registrys_own_thread(machine: Machine) -> None:
    registry = Registry(budgets={"cpu": 10}, plan=machine.plan, load=machine.load, idle_seconds=None, wait_seconds=0.05)
    taken(registry.request("a"))
    begun = time.monotonic()
    with pytest.raises(MemoryHeld):
        registry.request("c").wait(PATIENCE_SECONDS)
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    registry.close()


def test_a_plan_above_the_whole_budget_fails_at_once_with_the_numbers(registry: Registry[Pretend]) -> None:
    with pytest.raises(DoesNotFit) as does_not_fit:
        registry.request("huge")
    assert does_not_fit.value.data() == {"name": "huge", "device": "cpu", "needed_bytes": 11, "free_bytes": 10}


def test_a_device_without_a_budget_has_no_room(machine: Machine, registry: Registry[Pretend]) -> None:
    machine.plans["e"] = Plan("cuda:7", 1)
    with pytest.raises(DoesNotFit):
        registry.request("e")


def test_bytes_count_until_the_closing_has_returned(machine: Machine, registry: Registry[Pretend]) -> None:
    use_once(registry, "a")
    machine.hold("close a")
    ticket = registry.request("c")
    assert machine.reached("close a")
    assert registry.used_bytes("cpu") == 6
    assert machine.loads == ["a"]
    machine.let_go("close a")
    taken(ticket)
    assert registry.used_bytes("cpu") == 8


def test_a_closing_that_raises_frees_its_bytes_all_the_same(machine: Machine, registry: Registry[Pretend]) -> None:
    use_once(registry, "a")
    machine.close_errors["a"] = OSError("gone already")
    taken(registry.request("c"))
    assert registry.used_bytes("cpu") == 8


# What stays.


def test_what_models_bring_to_stay_is_counted_once_and_outlives_them(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.plans |= {"one": Plan("cpu", 2, kept_bytes=3), "two": Plan("cpu", 5, kept_bytes=3)}
    machine.errors["one"] = [OSError("no file")]
    with pytest.raises(LoadFailed), registry.lease("one"):
        pass
    assert registry.used_bytes("cpu") == 0, "it may have failed before it brought anything"
    use_once(registry, "one", "two")
    assert not machine.closings, "2 + 5 + 3 are the whole budget"
    assert registry.used_bytes("cpu") == 10
    assert [registry.status(name).bytes for name in ("one", "two")] == [2, 5]
    use_once(registry, "b")
    assert machine.closings == ["one", "two"], "4 fit beside the 3 that stay once both have gone"
    assert registry.used_bytes("cpu") == 4 + 3
    assert registry.kept_bytes("cpu") == 3
    with pytest.raises(DoesNotFit) as refused:
        registry.request("c")
    assert (refused.value.needed_bytes, refused.value.free_bytes) == (8 + 3, 10)


# Failures.


def test_a_failed_load_is_told_to_all_who_wait_and_kept_until_the_next_request(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.hold("load a")
    cause = BadCheckpoint("a.gguf", Reason("checkpoint.cut_meanwhile"))
    machine.errors["a"] = [cause]
    tickets = [registry.request("a"), registry.request("a")]
    machine.let_go("load a")
    told = []
    for ticket in tickets:
        with pytest.raises(LoadFailed) as failed:
            ticket.wait(PATIENCE_SECONDS)
        assert (failed.value.name, failed.value.cause) == ("a", cause)
        told.append(failed.value)
    assert told[0] is not told[1], "each is raised in another thread"
    status = registry.status("a")
    assert (status.state, status.bytes) == (ModelState.FAILED, 0)
    assert isinstance(status.error, LoadFailed)
    assert registry.used_bytes("cpu") == 0
    taken(registry.request("a"))
    assert registry.status("a").state is ModelState.READY
    registry.unload("a")
    assert registry.status("a").state is ModelState.DRAINING


def test_any_exception_of_a_load_reaches_who_waits(machine: Machine, registry: Registry[Pretend]) -> None:
    machine.errors["a"] = [ZeroDivisionError(), SystemExit()]
    for kind in (ZeroDivisionError, SystemExit):
        with pytest.raises(LoadFailed) as failed, registry.lease("a"):
            pass
        assert isinstance(failed.value.cause, kind)


@pytest.mark.parametrize("cause", [DoesNotFit("a", "cpu", 9, 1), NoModel("a", "package", "repo")])
def test_what_already_says_what_to_do_is_raised_as_itself(
    machine: Machine, registry: Registry[Pretend], cause: DoesNotFit | NoModel
) -> None:
    machine.errors["a"] = [cause]
    with pytest.raises(type(cause)) as raised, registry.lease("a"):
        pass
    assert raised.value.data() == cause.data()


def test_out_of_memory_evicts_what_is_idle_there_and_tries_once_more(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    use_once(registry, "tiny", "d")
    machine.errors["a"] = [MemoryError()]
    assert taken(registry.request("a")).value.name == "a"
    assert machine.loads == ["tiny", "d", "a", "a"]
    assert machine.closings == ["tiny"], "what is idle on another device stays"


def test_out_of_memory_twice_does_not_fit(machine: Machine, registry: Registry[Pretend]) -> None:
    held = taken(registry.request("tiny"))
    machine.errors["a"] = [MemoryError(), MemoryError()]
    with pytest.raises(DoesNotFit) as does_not_fit, registry.lease("a"):
        pass
    assert does_not_fit.value.data() == {"name": "a", "device": "cpu", "needed_bytes": 6, "free_bytes": 9}
    assert machine.loads == ["tiny", "a", "a"]
    assert machine.closings == []
    held.release()


def test_a_failed_load_keeps_nothing_of_what_was_half_loaded(machine: Machine) -> None:
    gone = threading.Event()

    class Weights:
        def __del__(self) -> None:
            gone.set()

    def load(name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> Pretend:
        weights = Weights()
        raise OSError(f"{name} is broken", id(weights))

    registry = Registry(budgets={"cpu": 10}, plan=machine.plan, load=load, idle_seconds=None, wait_seconds=1.0)
    with suppress(LoadFailed), registry.lease("a"):
        pass
    assert registry.status("a").error is not None
    assert gone.is_set()
    registry.close()


def test_a_dead_resident_is_dropped_at_the_next_request_and_loaded_afresh(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.plans["a"] = Plan("cpu", 5)
    old = taken(registry.request("a"))
    old.value.healthy = False
    new = taken(registry.request("a"))
    assert new.value is not old.value
    assert not old.value.closed.is_set(), "somebody still has a lease of it"
    assert registry.status("a").leases == 2
    old.release()
    assert old.value.closed.wait(PATIENCE_SECONDS)
    assert not new.value.closed.is_set()


# Leaving.


def test_a_request_that_leaves_before_its_load_has_begun_takes_the_load_with_it(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    lease = taken(registry.request("a"))
    ticket = registry.request("c")
    ticket.cancel()
    lease.release()
    assert registry.status("c").state is ModelState.ABSENT
    assert registry.status("a").state is ModelState.READY
    assert ticket.wait() is None
    assert machine.loads == ["a"]


def test_a_load_that_has_begun_goes_on_without_those_who_left_and_becomes_idle(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.hold("load a")
    leaver = registry.request("a")
    assert machine.reached("load a")
    leaver.cancel()
    assert registry.status("a").state is ModelState.LOADING
    machine.let_go("load a")
    use_once(registry, "a")
    assert leaver.poll() is None
    assert machine.loads == ["a"]
    status = registry.status("a")
    assert (status.state, status.leases) == (ModelState.READY, 0)


def test_cancelling_gives_back_a_lease_that_was_never_taken(registry: Registry[Pretend]) -> None:
    use_once(registry, "a")
    ticket = registry.request("a")
    assert registry.status("a").leases == 1
    ticket.cancel()
    ticket.cancel()
    assert registry.status("a").leases == 0
    assert ticket.poll() is None


def test_cancelling_leaves_a_lease_that_was_taken_to_who_has_it(registry: Registry[Pretend]) -> None:
    ticket = registry.request("a")
    lease = taken(ticket)
    ticket.cancel()
    assert registry.status("a").leases == 1
    lease.release()
    assert registry.status("a").leases == 0


# Unloading.


def test_unloading_closes_after_the_last_lease_and_a_request_meanwhile_gets_a_fresh_one(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.plans["a"] = Plan("cpu", 5)
    lease = taken(registry.request("a"))
    registry.unload("a")
    assert registry.status("a").state is ModelState.DRAINING
    fresh = taken(registry.request("a"))
    assert fresh.value is not lease.value
    assert machine.closings == []
    lease.release()
    assert lease.value.closed.wait(PATIENCE_SECONDS)
    assert not fresh.value.closed.is_set()


def test_unloading_what_is_idle_closes_it(registry: Registry[Pretend]) -> None:
    (value,) = use_once(registry, "a")
    registry.unload("a")
    assert value.closed.wait(PATIENCE_SECONDS)


def test_unloading_what_is_loading_serves_those_who_wait_and_then_lets_it_go(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.hold("load a")
    ticket = registry.request("a")
    assert machine.reached("load a")
    registry.unload("a")
    machine.let_go("load a")
    lease = taken(ticket)
    assert registry.status("a").state is ModelState.DRAINING
    lease.release()
    assert lease.value.closed.wait(PATIENCE_SECONDS)


def test_a_request_after_unloading_what_is_loading_keeps_it(machine: Machine, registry: Registry[Pretend]) -> None:
    machine.hold("load a")
    registry.request("a")
    assert machine.reached("load a")
    registry.unload("a")
    ticket = registry.request("a")
    machine.let_go("load a")
    taken(ticket)
    assert registry.status("a").state is ModelState.READY
    assert machine.loads == ["a"]


def test_unloading_what_is_loading_ends_the_load_at_its_next_report_where_nobody_waits(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    machine.hold("load a")
    leaver = registry.request("a")
    assert machine.reached("load a")
    leaver.cancel()
    registry.unload("a")
    waits_for_its_memory = registry.request("c")
    machine.let_go("load a")
    taken(waits_for_its_memory)
    assert registry.status("a").state is ModelState.ABSENT
    assert machine.closings == []


def test_who_asks_while_an_unwanted_load_ends_is_served_all_the_same(
    machine: Machine, registry: Registry[Pretend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> Pretend:
        try:
            return Machine.load(machine, name, plan, report)
        except Exception:
            machine.enter("end a")
            raise

    monkeypatch.setattr(registry, "_load", load)
    machine.hold("load a", "end a")
    leaver = registry.request("a")
    assert machine.reached("load a")
    leaver.cancel()
    registry.unload("a")
    machine.let_go("load a")
    assert machine.reached("end a")
    ticket = registry.request("a")
    machine.let_go("end a")
    assert taken(ticket).value.name == "a"
    assert machine.loads == ["a", "a"]


def test_a_pinned_model_is_evicted_neither_when_idle_nor_for_another_nor_for_want_of_memory(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    _, other = use_once(registry, "a", "b")
    registry.pin("a", pinned=True)
    machine.now += 2 * IDLE_SECONDS
    registry.unload_idle()
    assert other.closed.wait(PATIENCE_SECONDS)
    ticket = registry.request("c")
    assert ticket.progress.step == "wait"
    machine.now += WAIT_SECONDS
    with pytest.raises(MemoryHeld) as caught:
        ticket.poll()
    assert caught.value.holders == ("a",)
    machine.errors["b"] = [MemoryError()]
    use_once(registry, "b")
    assert registry.status("a").state is ModelState.READY
    assert registry.status("a").pinned


def test_a_pinned_model_goes_when_it_is_unloaded_and_counts_as_idle_when_it_is_pinned_no_more(
    machine: Machine, registry: Registry[Pretend]
) -> None:
    (value,) = use_once(registry, "a")
    registry.pin("a", pinned=True)
    registry.unload("a")
    assert value.closed.wait(PATIENCE_SECONDS)
    (value,) = use_once(registry, "a")
    registry.pin("a", pinned=False)
    use_once(registry, "c")
    assert value.closed.is_set()


def test_unloading_what_is_not_there_does_nothing(registry: Registry[Pretend]) -> None:
    registry.unload("a")
    assert registry.status("a").state is ModelState.ABSENT


def test_idle_time_counts_from_the_last_release(machine: Machine, registry: Registry[Pretend]) -> None:
    lease = taken(registry.request("a"))
    machine.now = 1_000.0
    registry.unload_idle()
    lease.release()
    machine.now += IDLE_SECONDS - 1.0
    registry.unload_idle()
    assert registry.status("a").state is ModelState.READY
    machine.now += 1.0
    registry.unload_idle()
    assert lease.value.closed.wait(PATIENCE_SECONDS)


def test_the_registrys_own_thread_unloads_what_is_idle(machine: Machine) -> None:
    registry = Registry(budgets={"cpu": 10}, plan=machine.plan, load=machine.load, idle_seconds=0.05, wait_seconds=1.0)
    (value,) = use_once(registry, "a")
    assert value.closed.wait(PATIENCE_SECONDS)
    registry.close()


def test_without_an_idle_time_nothing_is_unloaded(machine: Machine) -> None:
    registry = build(machine, idle_seconds=None)
    use_once(registry, "a")
    machine.now = 1e9
    registry.unload_idle()
    assert registry.status("a").state is ModelState.READY
    registry.close()


# Closing.


def test_closing_closes_in_reverse_order_of_loading_leased_or_not_and_ends_its_threads(machine: Machine) -> None:
    before = set(threading.enumerate())
    registry = build(machine)
    use_once(registry, "b", "d", "tiny")
    taken(registry.request("d"))
    registry.close()
    registry.close()
    assert machine.closings == ["tiny", "d", "b"]
    assert set(threading.enumerate()) <= before
    with pytest.raises(Closing):
        registry.request("b")


def test_closing_fails_those_who_wait_and_closes_what_a_load_still_gives(machine: Machine) -> None:
    registry = build(machine)
    lease = taken(registry.request("b"))
    machine.hold("load a")
    loading, waiting = registry.request("a"), registry.request("c")
    assert machine.reached("load a")
    closer = threading.Thread(target=registry.close)
    closer.start()
    for ticket in (loading, waiting):
        with pytest.raises(Closing):
            ticket.wait(PATIENCE_SECONDS)
    assert lease.value.closed.wait(PATIENCE_SECONDS)
    lease.release()
    machine.let_go()
    closer.join(PATIENCE_SECONDS)
    assert not closer.is_alive()
    assert registry.used_bytes("cpu") == 0
    assert machine.closings.count("b") == 1


def test_a_load_that_does_not_report_is_closed_when_it_ends_after_the_registry(machine: Machine) -> None:
    release, begun = threading.Event(), threading.Event()
    late = Pretend("a", machine)

    def load(name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> Pretend:
        begun.set()
        release.wait()
        return late

    registry = Registry(budgets={"cpu": 10}, plan=machine.plan, load=load, idle_seconds=None, wait_seconds=1.0)
    registry.request("a")
    assert begun.wait(PATIENCE_SECONDS)
    registry.close(join_seconds=0.0)
    release.set()
    assert late.closed.wait(PATIENCE_SECONDS)


def test_a_report_after_closing_ends_the_load(machine: Machine) -> None:
    registry = build(machine)
    machine.hold("load a")
    registry.request("a")
    assert machine.reached("load a")
    registry.close(join_seconds=0.0)
    with pytest.raises(Closing):
        machine.reports["a"](LoadProgress("load"))
    machine.let_go()


def test_a_lease_that_was_not_taken_before_closing_is_not_given_after(machine: Machine) -> None:
    registry = build(machine)
    use_once(registry, "a")
    ticket = registry.request("a")
    registry.close()
    with pytest.raises(Closing):
        ticket.poll()


def test_where_no_thread_can_be_started_the_work_is_done_late_and_not_never(
    machine: Machine, registry: Registry[Pretend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    taken(registry.request("a")).release()
    assert taken(registry.request("c")).value.name == "c"

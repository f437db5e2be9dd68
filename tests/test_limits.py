from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_demo.budgets import Allowance
from llama_demo.errors import Busy, Closing, LlamaDemoError, MessageTooLong
from llama_demo.limits import Admission, Limits, Place
from llama_demo.values import Sampling, Turn
from llama_demo.visitor_errors import TooManyRequests
from llama_demo.visitors import NOBODY, Role, Visitor


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_beyond_the_side_by_side_ones_wait_in_the_order_they_came() -> None:
    admission = Admission(concurrent=1, queue=2)
    first, second, third = (admission.enter() for _ in range(3))
    assert [place.position()[0] for place in (first, second, third)] == [0, 1, 2]
    first.leave()
    assert [place.position()[0] for place in (second, third)] == [0, 1]


def test_whoever_leaves_the_line_lets_the_others_move_up() -> None:
    admission = Admission(concurrent=1, queue=3)
    _, second, third = (admission.enter() for _ in range(3))
    second.leave()
    assert third.position()[0] == 1
    assert (admission.active, admission.waiting) == (1, 1)


def test_leaving_twice_frees_one_place_only() -> None:
    admission = Admission(concurrent=1, queue=3)
    first, _, third = (admission.enter() for _ in range(3))
    first.leave()
    first.leave()
    assert third.position()[0] == 1


def test_a_full_line_is_refused_with_how_many_wait_and_for_about_how_long() -> None:
    clock = Clock()
    admission = Admission(concurrent=2, queue=1, clock=clock)
    done = admission.enter()
    clock.now = 6.0
    done.leave()
    for _ in range(3):
        admission.enter()
    with pytest.raises(Busy) as caught:
        admission.enter()
    assert caught.value.waiting == 1
    assert caught.value.seconds == pytest.approx(6.0 * 2 / 2)
    assert isinstance(admission.refusal(), Busy)


def test_the_guess_of_the_wait_comes_from_how_long_requests_took() -> None:
    clock = Clock()
    admission = Admission(concurrent=1, queue=9, clock=clock)
    place = admission.enter()
    assert admission.enter().position() == (1, None)
    clock.now = 4.0
    place.leave()
    number, seconds = admission.enter().position()
    assert number == 1
    assert seconds == pytest.approx(4.0)


def test_a_conversation_of_too_many_characters_is_refused_with_both_numbers() -> None:
    limits = Limits(message_characters=10, max_new_tokens=5, context_tokens=100)
    limits.check([Turn("user", "12345"), Turn("assistant", "12345")])
    with pytest.raises(MessageTooLong) as caught:
        limits.check([Turn("user", "12345"), Turn("assistant", "123456")])
    assert (caught.value.characters, caught.value.limit) == (11, 10)


def test_a_longer_reply_than_the_server_gives_is_cut_to_what_it_gives() -> None:
    limits = Limits(message_characters=10, max_new_tokens=5, context_tokens=100)
    assert limits.clamp(Sampling(max_new_tokens=50)).max_new_tokens == 5
    assert limits.clamp(Sampling(max_new_tokens=3)).max_new_tokens == 3


def visitor(key: str, role: Role = Role.ANONYMOUS) -> Visitor:
    return Visitor(key, role)


def served(admission: Admission, places: Sequence[Place]) -> list[str]:
    """Ends the requests one at a time, and gives whose were answered, in order."""
    order: list[str] = []
    left = list(places)
    while left:
        done = next(place for place in left if place.position()[0] == 0)
        order.append(done.visitor.key)
        done.leave()
        left.remove(done)
    return order


def test_a_visitor_with_one_request_is_next_though_another_has_many_in_the_line() -> None:
    admission = Admission(concurrent=1, queue=99)
    greedy = [admission.enter(visitor("greedy")) for _ in range(20)]
    modest = admission.enter(visitor("modest"))
    assert modest.position()[0] == 2
    assert served(admission, [*greedy, modest]).index("modest") == 2


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=60), st.integers(1, 4))
def test_whatever_comes_and_goes_no_visitor_is_admitted_twice_while_another_waits_for_one(
    events: list[tuple[str, bool]], concurrent: int
) -> None:
    admission = Admission(concurrent, queue=99)
    places: list[Place] = []
    waiting_first: dict[str, Place] = {}
    passed: dict[Place, Counter[str]] = {}
    for name, comes in events:
        admitted = [place for place in places if place.position()[0] == 0]
        if comes or not admitted:
            places.append(admission.enter(visitor(name)))
        else:
            admitted[0].leave()
            places.remove(admitted[0])
        now = [place for place in places if place.position()[0] == 0]
        assert len(now) == min(concurrent, len(places))
        new = [place.visitor.key for place in now if place not in admitted]
        for place in waiting_first.values():
            if place not in now:
                passed[place].update(new)
                assert max(passed[place].values(), default=0) <= 1
        waiting_first = {place.visitor.key: place for place in reversed(places) if place not in now}
        for place in waiting_first.values():
            passed.setdefault(place, Counter())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 3))
def test_on_a_public_server_nobody_has_more_side_by_side_and_nothing_is_left_idle(
    events: list[tuple[str, bool]], share: int
) -> None:
    admission = Admission(4, queue=99, clock=Clock(), allowance=Allowance(share, 99, 9_999, 9_999))
    places: list[Place] = []
    for name, comes in events:
        admitted = [place for place in places if place.position()[0] == 0]
        if comes or not admitted:
            places.append(admission.enter(visitor(name)))
        else:
            admitted[-1].leave()
            places.remove(admitted[-1])
        wanted = Counter(place.visitor.key for place in places)
        had = Counter(place.visitor.key for place in places if place.position()[0] == 0)
        assert max(had.values(), default=0) <= share
        assert had.total() == min(4, sum(min(count, share) for count in wanted.values()))


@given(st.lists(st.sampled_from(["a", "b", "c", "owner"]), min_size=1, max_size=30), st.integers(0, 20))
def test_the_place_that_is_shown_is_how_many_are_answered_before(names: list[str], done: int) -> None:
    admission = Admission(concurrent=1, queue=99)
    roles = {"owner": Role.OWNER}
    places = [admission.enter(visitor(name, roles.get(name, Role.ANONYMOUS))) for name in names]
    for _ in range(min(done, len(places) - 1)):
        ready = next(place for place in places if place.position()[0] == 0)
        ready.leave()
        places.remove(ready)
    shown = {place: place.position()[0] for place in places}
    for number in range(len(places)):
        ready = next(place for place in places if place.position()[0] == 0)
        assert shown[ready] == number
        ready.leave()
        places.remove(ready)


def test_the_owner_has_four_turns_while_an_anonymous_visitor_has_one() -> None:
    admission = Admission(concurrent=1, queue=99)
    first = admission.enter(visitor("first"))
    places = [admission.enter(visitor(name)) for name in "aaaa"]
    places += [admission.enter(visitor("o", Role.OWNER)) for _ in range(8)]
    first.leave()
    assert "".join(served(admission, places)) == "aooooaooooaa"


def test_on_a_public_server_a_visitor_has_so_many_side_by_side_and_the_owner_has_all() -> None:
    admission = Admission(8, queue=99, allowance=Allowance(2, 3, 1000, 1000))
    places = [admission.enter(visitor("a")) for _ in range(5)]
    assert [place.position()[0] for place in places] == [0, 0, 1, 2, 3]
    with pytest.raises(Busy):
        admission.enter(visitor("a"))
    assert admission.enter(visitor("b")).position()[0] == 0
    assert admission.refusal() is None
    owner = [admission.enter(visitor("o", Role.OWNER)) for _ in range(5)]
    assert [place.position()[0] for place in owner] == [0] * 5


def test_more_requests_or_tokens_than_a_minute_allows_are_refused_with_the_seconds_to_wait() -> None:
    clock = Clock()
    admission = Admission(8, 99, clock=clock, allowance=Allowance(8, 8, requests_per_minute=6, tokens_per_minute=600))
    for _ in range(6):
        admission.enter(visitor("a")).leave()
    with pytest.raises(TooManyRequests) as caught:
        admission.enter(visitor("a"))
    assert caught.value.seconds == pytest.approx(10.0)
    admission.enter(visitor("b"))
    clock.now += 10.0
    admission.enter(visitor("a")).leave()
    admission.spend(visitor("b"), 900)
    with pytest.raises(TooManyRequests) as caught:
        admission.enter(visitor("b"))
    assert caught.value.seconds == pytest.approx(30.0)
    admission.spend(visitor("o", Role.OWNER), 10**9)
    admission.enter(visitor("o", Role.OWNER))


def test_a_new_cookie_for_each_request_gives_an_address_no_more_than_eight_visitors_share() -> None:
    admission = Admission(
        999, 999, clock=Clock(), allowance=Allowance(9, 9, requests_per_minute=5, tokens_per_minute=9)
    )
    for number in range(40):
        admission.enter(Visitor(f"cookie {number}", Role.ANONYMOUS, "address"))
    with pytest.raises(TooManyRequests):
        admission.enter(Visitor("another", Role.ANONYMOUS, "address"))
    admission.enter(Visitor("another", Role.ANONYMOUS, "another address"))


def test_a_closing_line_refuses_who_comes_and_who_waits_and_ends_who_is_answered_only_when_told() -> None:
    ended: list[LlamaDemoError] = []
    admission = Admission(concurrent=1, queue=9)
    active = admission.enter(NOBODY, ended.append)
    waiting = admission.enter(NOBODY, ended.append)
    admission.close(Closing())
    with pytest.raises(Closing):
        admission.enter()
    with pytest.raises(Closing):
        waiting.position()
    assert active.position()[0] == 0
    assert not ended
    admission.end_all(Closing())
    assert len(ended) == 1
    active.leave()
    waiting.leave()
    assert (admission.active, admission.waiting) == (0, 0)


def test_who_waits_is_called_when_the_turn_has_come_and_when_there_will_be_none() -> None:
    called: list[str] = []
    admission = Admission(concurrent=1, queue=9)
    places = [admission.enter(visitor(name), call=partial(called.append, name)) for name in "abcd"]
    assert called == ["a"]
    places[2].leave()
    places[0].leave()
    assert called == ["a", "b"]
    admission.close(Closing())
    assert called == ["a", "b", "d"]

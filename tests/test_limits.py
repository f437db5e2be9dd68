from __future__ import annotations

import pytest

from llama_demo.errors import Busy, MessageTooLong
from llama_demo.limits import Admission, Limits
from llama_demo.values import Sampling, Turn


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

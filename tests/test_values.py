from __future__ import annotations

import math
from typing import Any

import pytest

from llama_demo.errors import EmptyMessage, InvalidHistory, InvalidParameter, InvalidUnicode
from llama_demo.values import Sampling, Turn, turns_from


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", None),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("max_new_tokens", 0),
        ("max_new_tokens", 1e300),
        ("seed", -1),
        ("seed", 2**31),
        ("seed", "lucky"),
    ],
)
def test_a_parameter_out_of_range_or_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Sampling(**{name: value})
    assert caught.value.name == name
    assert caught.value.expected.data.keys() == {"low", "high"}


def test_whole_numbers_may_come_as_floats_and_end_as_integers() -> None:
    sampling = Sampling(max_new_tokens=12.0, top_k=5.0, seed=7.0, temperature=1)  # type: ignore[arg-type]
    assert (sampling.max_new_tokens, sampling.top_k, sampling.seed) == (12, 5, 7)
    assert isinstance(sampling.max_new_tokens, int)
    assert isinstance(sampling.temperature, float)


def test_a_conversation_is_read_with_the_system_prompt_first() -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "metadata": None}]
    assert turns_from(history, "c", "be brief") == (
        Turn("system", "be brief"),
        Turn("user", "a"),
        Turn("assistant", "b"),
        Turn("user", "c"),
    )


def test_a_given_system_prompt_replaces_the_histories_own() -> None:
    history = [{"role": "system", "content": "old"}]
    assert turns_from(history, "c", "new") == (Turn("system", "new"), Turn("user", "c"))
    assert turns_from(history, "c") == (Turn("system", "old"), Turn("user", "c"))


@pytest.mark.parametrize(
    ("history", "index"),
    [
        ([{"role": "user", "content": "a"}, "text"], 1),
        ([{"role": "robot", "content": "a"}], 0),
        ([{"content": "a"}], 0),
        ([{"role": "user"}], 0),
        ([{"role": "user", "content": ["a"]}], 0),
        ([{"role": ["user"], "content": "a"}], 0),
    ],
)
def test_a_broken_history_is_refused_naming_the_entry(history: Any, index: int) -> None:
    with pytest.raises(InvalidHistory) as caught:
        turns_from(history, "hello")
    assert caught.value.index == index


@pytest.mark.parametrize("history", ["text", 7, None, {"role": "user"}])
def test_a_history_that_is_no_list_is_refused(history: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        turns_from(history, "hello")
    assert caught.value.name == "history"


@pytest.mark.parametrize("message", ["", "   ", "\n\t"])
def test_an_empty_or_blank_message_is_refused(message: str) -> None:
    with pytest.raises(EmptyMessage):
        turns_from([], message)


def test_half_a_surrogate_pair_is_refused_with_its_position() -> None:
    with pytest.raises(InvalidUnicode) as caught:
        turns_from([], "ab\ud800")
    assert caught.value.position == 2


@pytest.mark.parametrize(("message", "system"), [(7, ""), ("hello", 7), (["a"], "")])
def test_a_message_or_system_prompt_that_is_no_text_is_refused(message: Any, system: Any) -> None:
    with pytest.raises(InvalidParameter):
        turns_from([], message, system)

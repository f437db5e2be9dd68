from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_demo.classify.wrapping import Wrapping, texts_from
from llama_demo.classify_errors import BadExample
from llama_demo.errors import InvalidParameter, InvalidUnicode, MessageTooLong, PromptTooLong
from llama_demo.limits import Limits
from llama_demo.tokenizer import Tokenizer

WRAPPING = Wrapping("Review: {text}\nSentiment:")


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_folder)


def test_a_text_is_encoded_with_its_prompt_as_one(tokenizer: Tokenizer) -> None:
    read = WRAPPING.read(tokenizer, "the harbour", 500)
    assert list(read.ids) == tokenizer.encode_text("Review: the harbour\nSentiment:")
    assert read.cut_characters == 0


@pytest.mark.parametrize("room", [40, 41, 57])
def test_a_long_text_is_cut_as_little_as_it_must_and_the_prompt_never(tokenizer: Tokenizer, room: int) -> None:
    text = "the boats come back with the tide; " * 30
    read = WRAPPING.read(tokenizer, text, room)
    kept = len(text) - read.cut_characters
    assert len(read.ids) <= room
    assert list(read.ids) == tokenizer.encode_text(WRAPPING.wrap(text[:kept]))
    assert len(tokenizer.encode_text(WRAPPING.wrap(text[: kept + 1]))) > room


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptTooLong):
        WRAPPING.read(tokenizer, "the harbour", 5)


@pytest.mark.parametrize("prompt", ["", "no place", "{text} and {text}", "{text}" + "x" * 30_000, None])
def test_a_prompt_has_one_place_for_the_text(prompt: str) -> None:
    with pytest.raises(InvalidParameter):
        Wrapping(prompt)


def test_texts_that_cannot_be_read_are_named(limits: Limits) -> None:
    assert texts_from("one", limits) == ("one",)
    bad: Any = ((["a", ""], 2), (["a", "b", " \n"], 3), ([7], 1))
    for value, number in bad:
        with pytest.raises(BadExample) as raised:
            texts_from(value, limits)
        assert raised.value.number == number
    for no_texts in ([], None, 7, ["a"] * 50_001):
        with pytest.raises(InvalidParameter):
            texts_from(no_texts, limits)
    with pytest.raises(InvalidUnicode):
        texts_from(["\ud800"], limits)
    with pytest.raises(MessageTooLong):
        texts_from(["x" * 1001], limits)

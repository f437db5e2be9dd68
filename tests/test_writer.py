from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_demo.generation.writer import Writer
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import Token

texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30)
stops = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_folder if request.param == "byte-level" else tiny_sentencepiece_folder)


def tokens(tokenizer: Tokenizer, text: str) -> list[Token]:
    return [Token(number, -0.5) for number in tokenizer.encode(text)]


@settings(max_examples=500)
@given(
    before=texts,
    stop=st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    after=texts,
    step=st.integers(1, 5),
)
def test_a_stop_string_never_leaks_a_part_wherever_tokens_and_characters_have_their_borders(
    tokenizer: Tokenizer, before: str, stop: str, after: str, step: int
) -> None:
    made = tokens(tokenizer, before + stop + after)
    whole = tokenizer.decode([token.id for token in made])
    writer = Writer(tokenizer, [stop])
    for start in range(0, len(made), step):
        writer.add(made[start : start + step])
        assert stop not in writer.text
        assert whole.startswith(writer.text)
        assert whole.find(stop) < 0 or len(writer.text) <= whole.index(stop)
    writer.end("length")
    found = whole.find(stop)
    assert writer.text == (whole[:found] if found >= 0 else whole)
    assert writer.finish == ("stop" if found >= 0 else "length")


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("to the harbour", "he har", "to t"),
        ("수도는 서울이다", "울이", "수도는 서"),
        ("a🦙b", "🦙", "a"),
        ("boats\n\nUser: hi", "\n\nUser:", "boats"),
    ],
)
def test_it_ends_with_the_token_that_completes_the_stop_string(
    tokenizer: Tokenizer, text: str, stop: str, shown: str
) -> None:
    made = tokens(tokenizer, text)
    writer = Writer(tokenizer, ["not there", stop])
    writer.add(made)
    assert (writer.text, writer.finish) == (shown, "stop")
    assert stop in tokenizer.decode(writer.ids)
    assert stop not in tokenizer.decode(writer.ids[:-1])
    assert len(writer.logprobs) == len(writer.ids)
    writer.add(made)
    assert writer.text == shown


def test_what_might_have_begun_a_stop_string_is_shown_at_the_end(tokenizer: Tokenizer) -> None:
    writer = Writer(tokenizer, ["boats!"])
    writer.add(tokens(tokenizer, "the boats"))
    assert writer.text == "the "
    writer.end("length")
    assert (writer.text, writer.finish) == ("the boats", "length")

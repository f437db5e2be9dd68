from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_demo.detokenize import PieceStream, StopStrings
from llama_demo.tokenizer import Tokenizer

TEXTS = [
    "a  b\n\n c",
    " leading",
    "  two leading",
    "서울은 한국의 수도",
    "🦙🏽\u200d\u2640\ufe0f llama",
    "1,234.5",
    "\t\n",
    "\ufffd",
    "e\u0301",
]
texts = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_folder if request.param == "byte-level" else tiny_sentencepiece_folder)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = PieceStream(tokenizer)
    return [stream.add([number]) for number in ids]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_joined_are_the_whole_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=1000)
@given(text=texts)
def test_the_pieces_of_any_text_joined_are_the_whole_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    made = pieces(tokenizer, ids)
    assert "".join(made) == tokenizer.decode(ids)
    assert "".join(made) in (text, text.removeprefix(" "))  # SentencePiece's own first space is part of every text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in made)


@settings(max_examples=200)
@given(text=texts, cut=st.integers(min_value=0, max_value=60))
def test_a_text_cut_anywhere_shows_no_broken_character(tokenizer: Tokenizer, text: str, cut: int) -> None:
    text = text.replace("\ufffd", "")
    shown = "".join(pieces(tokenizer, tokenizer.encode(text)[:cut]))
    assert "\ufffd" not in shown
    assert text.startswith(shown) or text.startswith(" " + shown)


def test_how_many_ids_come_at_once_changes_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" ".join(TEXTS))
    stream = PieceStream(tokenizer)
    halves = stream.add(ids[:7]) + stream.add(ids[7:])
    assert halves == "".join(pieces(tokenizer, ids))


def test_a_continued_text_keeps_the_space_before_its_first_word(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The boats come back")
    split = next(index for index in range(1, len(ids)) if tokenizer.decode(ids[:index]) == "The boats")
    stream = PieceStream(tokenizer, after=ids[:split])
    assert stream.add(ids[split:]) == " come back"


@settings(max_examples=500)
@given(draw=st.randoms(use_true_random=False), length=st.integers(0, 30))
def test_whatever_ids_a_model_writes_the_pieces_are_their_text(
    tokenizer: Tokenizer, draw: random.Random, length: int
) -> None:
    ids = [draw.randrange(tokenizer.vocabulary_size) for _ in range(length)]
    shown, whole = "".join(pieces(tokenizer, ids)), tokenizer.decode(ids)
    if "\ufffd" not in whole:
        assert shown == whole
    if not tokenizer.strips_spaces:  # SentencePiece's decoder marks the whole characters beside a broken one too.
        assert shown.rstrip("\ufffd") == whole.rstrip("\ufffd")


@settings(max_examples=300)
@given(text=texts, cut=st.integers(min_value=0, max_value=60))
def test_a_text_continued_anywhere_even_inside_a_character_goes_on_as_the_whole(
    tokenizer: Tokenizer, text: str, cut: int
) -> None:
    ids = tokenizer.encode(text.replace("\ufffd", ""))
    before = "".join(pieces(tokenizer, ids[:cut]))
    assert before + PieceStream(tokenizer, after=ids[:cut]).add(ids[cut:]) == tokenizer.decode(ids)


def test_a_broken_character_after_a_whole_one_is_a_replacement_mark(tiny_sentencepiece_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_sentencepiece_folder)
    ids = [*tokenizer.encode("서"), *(number for number in tokenizer.encode("서")[-1:]), *tokenizer.encode("a")]
    assert PieceStream(tokenizer).add(ids) == "서\ufffd a"


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    assert PieceStream(tokenizer).add([1, *tokenizer.encode("x"), 2]) == "x"


@pytest.mark.parametrize(
    ("stops", "texts", "shown", "hit"),
    [
        (["\nUser:"], ["Hello", "\nUs", "er: more"], "Hello", True),
        (["\nUser:"], ["Hello", "\nUs", "ually"], "Hello\nUsually", False),
        (["end", "e"], ["the end"], "th", True),
        (["서울"], ["수도는 ", "서", "울이다"], "수도는 ", True),
        (["aab"], ["aa", "aab"], "aa", True),
        ([], ["anything"], "anything", False),
        (["", "x"], ["abc"], "abc", False),
    ],
)
def test_text_flows_up_to_the_first_stop_string(stops: list[str], texts: list[str], shown: str, hit: bool) -> None:
    matcher, emitted, found = StopStrings(stops), "", False
    for text in texts:
        if not found:
            piece, found = matcher.add(text)
            emitted += piece
    assert (emitted if found else emitted + matcher.end(), found) == (shown, hit)


@settings(max_examples=500)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    parts=st.lists(st.text("ab", max_size=3), max_size=8),
)
def test_no_part_of_a_stop_string_leaks_however_the_text_is_cut(stops: list[str], parts: list[str]) -> None:
    matcher, emitted, seen = StopStrings(stops), "", ""
    for part in parts:
        seen += part
        piece, hit = matcher.add(part)
        emitted += piece
        assert hit == any(stop in seen for stop in stops)
        if hit:
            assert all(stop not in emitted for stop in stops)
            assert seen.startswith(emitted)
            return
    assert emitted + matcher.end() == seen

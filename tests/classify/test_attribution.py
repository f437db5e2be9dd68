from __future__ import annotations

import numpy as np
import pytest

from llama_demo.classify.attribution import FEWEST_PARTS, MOST_PARTS, effects, parts_of


def test_each_word_is_left_out_in_turn_and_nothing_else() -> None:
    made = parts_of("  The tide,\nand  boats. ", 8)
    assert [made_text.split() for made_text in made.variants] == [
        ["tide,", "and", "boats."],
        ["The", "and", "boats."],
        ["The", "tide,", "boats."],
        ["The", "tide,", "and"],
    ]
    assert ["  The tide,\nand  boats. "[start:end] for start, end in made.spans] == ["The", "tide,", "and", "boats."]
    assert made.words == 1


@pytest.mark.parametrize("count", [2, MOST_PARTS, MOST_PARTS + 1, 5000])
def test_a_long_text_is_told_by_some_words_at_a_time(count: int) -> None:
    text = " ".join(f"word{number}" for number in range(count))
    made = parts_of(text, 2)
    assert 2 <= len(made.spans) <= MOST_PARTS
    assert (made.words == 1) == (count <= MOST_PARTS)
    told = [text[start:end].split() for start, end in made.spans]
    assert [word for words in told for word in words] == text.split()
    assert {len(words) for words in told[:-1]} == {made.words}


def test_what_must_be_read_is_bounded_however_many_tokens_a_word_has() -> None:
    text = "a b c d " * 100
    assert len(parts_of(text, 2_000).spans) < MOST_PARTS / 2
    assert FEWEST_PARTS / 2 < len(parts_of(text, 1_000_000).spans) <= FEWEST_PARTS


def test_scripts_without_spaces_are_told_by_character() -> None:
    assert list(parts_of("海が好き yes", 6).spans) == [(0, 1), (1, 2), (2, 3), (3, 4), (5, 8)]
    assert len(parts_of("바다가 좋다", 6).spans) == 2


def test_a_single_word_has_nothing_to_be_compared_with() -> None:
    assert parts_of(" alone ", 3).spans == parts_of(" ", 3).spans == ()


def test_effects_are_differences_of_log_odds_or_of_values() -> None:
    moved = effects("single_label_classification", [0.8, 0.2], np.array([[0.5, 0.5], [0.8, 0.2], [1.0, 0.0]]))
    assert moved[0] == pytest.approx([np.log(4), -np.log(4)])
    assert moved[1] == pytest.approx([0, 0])
    assert moved[2, 0] < 0 < moved[2, 1]
    assert np.isfinite(moved).all()
    assert effects("regression", [3.0], np.array([[1.0]])).tolist() == [[2.0]]

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llama_demo.classify.labels import labels_from
from llama_demo.classify.wrapping import Wrapping
from llama_demo.classify.zero_shot import (
    CHUNK_TEXTS,
    CONTENT_FREE,
    PROMPTS,
    ZeroShot,
    choose_prompt,
    label_endings,
    score,
)
from llama_demo.errors import InvalidParameter, PromptTooLong
from llama_demo.loading import LoadedModel

LABELS = labels_from(["the capital of South Korea", "bread", "winter"])
TEXTS = ["the harbour lies below the old town", "a dog sleeps", "1, 2, 3, 4, 5"]
PROMPT = "Text: {text}\nLabel:"


def go_on(_: int, __: int) -> bool:
    return True


def scored(loaded: LoadedModel, asked: ZeroShot, texts: list[str], told: Any = go_on) -> Any:
    return score(loaded, asked, asked.wrappings()[0], texts, told)


def by_hand(loaded: LoadedModel, text: str, *, mean: bool) -> list[float]:
    """Each label's log-likelihood behind the whole prompt, scored alone."""
    made = []
    for label in LABELS:
        begun = loaded.tokenizer.encode_text(PROMPT.replace("{text}", text))
        ids = loaded.tokenizer.encode_text(PROMPT.replace("{text}", text) + " " + label.name)
        logprobs = loaded.engine.score(ids, 0).logprobs[len(begun) :]
        made.append(float(logprobs.mean() if mean else logprobs.sum()))
    return made


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("prior", [True, False])
def test_each_correction_does_what_it_says(tiny_loaded: LoadedModel, mean: bool, prior: bool) -> None:
    asked = ZeroShot(LABELS, PROMPT, normalise_length=mean, correct_prior=prior)
    made = scored(tiny_loaded, asked, TEXTS)
    assert made is not None
    taken_off = np.mean([by_hand(tiny_loaded, text, mean=mean) for text in CONTENT_FREE], axis=0) if prior else 0.0
    for logits, text in zip(made.logits, TEXTS, strict=True):
        assert logits == pytest.approx(np.array(by_hand(tiny_loaded, text, mean=mean)) - taken_off, abs=1e-3)


def test_a_text_has_the_same_scores_alone_and_in_company(tiny_loaded: LoadedModel) -> None:
    asked = ZeroShot(LABELS)
    texts = [f"text {'word ' * (number % 9)}{number}" for number in range(2 * CHUNK_TEXTS)]
    together = scored(tiny_loaded, asked, texts)
    assert together is not None
    for place in (0, 5, 63):
        alone = scored(tiny_loaded, asked, texts[place : place + 1])
        assert alone is not None
        assert alone.logits[0] == pytest.approx(together.logits[place], abs=1e-4)


def test_labels_are_read_as_the_tokenizer_joins_them_to_the_prompt(tiny_loaded: LoadedModel) -> None:
    for prompt in ("Text: {text}\nLabel:", "Text: {text}\nLabel: ", "{text} the", "{text}"):
        dropped, endings = label_endings(tiny_loaded.tokenizer, Wrapping(prompt), ["bread", "brea", "winter"])
        begun = prompt.replace("{text}", "x")
        ids = tiny_loaded.tokenizer.encode_text(begun)
        space = "" if begun.endswith(" ") else " "
        for name, ending in zip(("bread", "brea", "winter"), endings, strict=True):
            whole = [*ids[: len(ids) - dropped], *ending]
            assert whole == tiny_loaded.tokenizer.encode_text(f"{begun}{space}{name}")


def test_descriptions_and_instructions_are_in_the_prompt() -> None:
    labels = labels_from(["a", {"name": "b", "description": "the second letter"}])
    assert all("b: the second letter" in wrapping.prompt for wrapping in ZeroShot(labels).wrappings())
    assert ZeroShot(labels, "Which letter?").wrappings()[0].prompt.startswith("Which letter?")
    assert [each.prompt for each in ZeroShot(labels_from(["a", "b"]), "{text} is").wrappings()] == ["{text} is"]
    for instruction in ("{text}{text}", 7, "x" * 20_000):
        with pytest.raises(InvalidParameter):
            ZeroShot(labels, instruction)  # type: ignore[arg-type]


def test_the_prompt_is_the_one_that_asks_for_such_labels_and_the_general_one_where_none_does() -> None:
    """An engine to which a label is likely after the prompt that names it."""

    class Asked:
        def score_endings(self, prompts: Any, endings: Any) -> Any:
            emotional = [b"Emotion" in bytes(ids) for ids in prompts]
            wanted = [bytes(ids) == b" joy" for ids in endings]
            return np.array([[[-1.0 if each and joy else -9.0] for joy in wanted] for each in emotional], np.float32)

    bytewise = SimpleNamespace(encode_text=lambda text: list(text.encode()))
    model: Any = SimpleNamespace(engine=Asked(), tokenizer=bytewise)
    wrappings = [Wrapping(prompt) for prompt in PROMPTS]
    assert "Emotion" in choose_prompt(model, wrappings, ["joy", "fear"]).prompt
    assert choose_prompt(model, wrappings, ["sports", "science"]) == wrappings[0]


def test_a_long_text_is_cut_and_said_and_a_prompt_without_room_refused(tiny_loaded: LoadedModel) -> None:
    made = scored(tiny_loaded, ZeroShot(LABELS), ["the boats come back " * 200, "short"])
    assert made is not None
    assert made.cut_characters[0] > 0
    assert made.cut_characters[1] == 0
    assert np.isfinite(made.logits).all()
    with pytest.raises(PromptTooLong):
        scored(tiny_loaded, ZeroShot(LABELS, "long words " * 300), ["short"])


def test_a_cancel_is_heard_between_two_chunks(tiny_loaded: LoadedModel) -> None:
    told: list[int] = []

    def stop(done: int, _: int) -> bool:
        told.append(done)
        return len(told) < 2

    assert scored(tiny_loaded, ZeroShot(LABELS), ["text"] * 200, stop) is None
    assert len(told) == 2

"""Scores of the service over real weights, held to transformers' own forward pass; and over a scripted engine."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_demo.engines.transformers import TransformersEngine
from llama_demo.errors import (
    EngineCrashed,
    InvalidHistory,
    InvalidParameter,
    InvalidUnicode,
    MessageTooLong,
    PromptTooLong,
    UnknownModel,
)
from llama_demo.generation import Stopper
from llama_demo.values import LoadProgress, Sampling, ScoredText, Scores, Turn, Waiting
from tests.scripted import MODEL, World, worlds
from tests.tiny import CONTEXT_TOKENS

TEXTS = [
    "The boats come back with the tide behind them.",
    "서울은 한국의 수도이다. 한글!",
    "🦙 and 👩🏽\u200d🚀 are e\u0301 characters",
    " leading space",
    "  two leading, and  two   inside",
    "\n\nlines\n and\ttabs\r\n",
    "a",
    "<|im_start|>user </s> is only text",
]
TURNS = (Turn("user", "Where?"), Turn("assistant", "To the harbour"))


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def folder(request: pytest.FixtureRequest, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Path:
    return tiny_folder if request.param == "byte-level" else tiny_sentencepiece_folder


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    """Real scores: the tests' own model in float32."""
    engine = TransformersEngine(
        folder, name=folder.name, eos_ids=(2,), context_tokens=CONTEXT_TOKENS, reproducible=True
    )
    made = World(folder, engine)
    yield made
    made.registry.close()


@pytest.fixture
def make(tiny_folder: Path) -> Iterator[Callable[..., World]]:
    yield from worlds(tiny_folder)


def forward(folder: Path, ids: Sequence[int]) -> Any:
    """transformers' own log-probabilities [len(ids), vocabulary] of what follows each token, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].log_softmax(-1).numpy()


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_has_the_log_probability_of_transformers_own_forward_pass(
    world: World, folder: Path, text: str
) -> None:
    from transformers import AutoTokenizer

    tokens = world.scored(text, top_k=5).tokens
    ids = [token.id for token in tokens]
    if "</s>" not in text:  # transformers reads markers in a plain text as markers
        assert ids == AutoTokenizer.from_pretrained(str(folder))(text)["input_ids"]
    logprobs = forward(folder, ids)
    for before, token in enumerate(tokens[1:]):
        row = logprobs[before]
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        assert token.rank == 1 + int((row > row[token.id]).sum())
        assert token.entropy == pytest.approx(float(-(np.exp(row) * row).sum()), abs=1e-3)
        assert [other.id for other in token.top] == np.argsort(-row, kind="stable")[:5].tolist()
        assert [other.logprob for other in token.top] == pytest.approx(np.sort(row)[::-1][:5].tolist(), abs=1e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_texts_joined_are_the_text(world: World, text: str) -> None:
    joined = "".join(token.text for token in world.scored(text).tokens)
    assert joined in (text, text.removeprefix(" "))  # SentencePiece's own first space is part of every text


def test_a_second_call_gives_the_same_answer_after_the_text_was_generated_on_too(world: World) -> None:
    first = world.scored(TEXTS[0], top_k=5)
    world.completion(TEXTS[0], sampling=Sampling(max_new_tokens=5))
    assert world.scored(TEXTS[0], top_k=5) == first


def test_nothing_is_said_of_the_first_token(world: World) -> None:
    first = world.scored("The boats").tokens[0]
    assert (first.logprob, first.rank, first.entropy, first.top) == (None, None, None, ())


def test_the_perplexity_is_of_all_tokens_but_the_first(world: World) -> None:
    scored = world.scored(TEXTS[0])
    logprobs = [token.logprob for token in scored.tokens if token.logprob is not None]
    assert len(logprobs) == len(scored.tokens) - 1
    assert scored.perplexity == pytest.approx(math.exp(-sum(logprobs) / len(logprobs)))
    assert world.scored((5,)).perplexity is None


def test_an_empty_text_is_the_start_of_a_text_alone(world: World) -> None:
    for source in ("", ()):
        (token,) = world.scored(source).tokens
        assert (token.id, token.text) == (1, "")


def test_generated_tokens_have_the_log_probabilities_that_they_were_drawn_with(world: World) -> None:
    made = world.completion("The boats", sampling=Sampling(temperature=0.0, max_new_tokens=20))
    (one,) = made.continuations
    tokens = world.scored((*made.prompt_ids, *one.ids)).tokens[len(made.prompt_ids) :]
    assert [token.rank for token in tokens] == [1] * len(one.ids)
    assert [token.logprob for token in tokens] == pytest.approx(list(one.logprobs), abs=1e-3)
    assert made.prompt + one.text == "".join(token.text for token in world.scored((*made.prompt_ids, *one.ids)).tokens)


def test_a_part_of_a_character_is_named_by_its_byte_and_has_no_text(world: World) -> None:
    tokens = world.scored(tuple(world.tokenizer.encode("서"))[:-1]).tokens
    assert [token.token for token in tokens[-2:]] == ["<0xEC>", "<0x84>"]
    assert "".join(token.text for token in tokens).strip() == ""


def test_a_conversation_is_scored_through_the_template_up_to_the_replys_last_token(world: World) -> None:
    tokens = world.scored(TURNS).tokens
    assert "".join(token.token for token in tokens).endswith("harbour")
    assert "Where?" in "".join(token.text for token in tokens)


def test_a_conversation_that_is_too_long_loses_its_oldest_turns(world: World) -> None:
    turns = [turn for _ in range(40) for turn in (Turn("user", "question"), Turn("assistant", "an answer"))]
    tokens = world.scored((*turns, *TURNS)).tokens
    assert CONTEXT_TOKENS // 2 < len(tokens) <= CONTEXT_TOKENS
    assert "Where?" in "".join(token.text for token in tokens)


@pytest.mark.parametrize("top_k", [0, 7, 100, 7.0])
def test_as_many_alternatives_come_as_were_asked_for(world: World, top_k: Any) -> None:
    assert {len(token.top) for token in world.scored("The boats come", top_k).tokens[1:]} == {int(top_k)}


@pytest.mark.parametrize(
    ("source", "top_k", "error"),
    [
        (tuple(range(5, 6)) * (CONTEXT_TOKENS + 1), 3, PromptTooLong),
        ("x" * 2_001, 3, MessageTooLong),
        ("a\ud800", 3, InvalidUnicode),
        ((5, 1_000_000), 3, InvalidParameter),
        ((5, -1), 3, InvalidParameter),
        ((5, "a"), 3, InvalidParameter),
        (7, 3, InvalidParameter),
        (None, 3, InvalidParameter),
        (TURNS[:1], 3, InvalidHistory),
        ("a", -1, InvalidParameter),
        ("a", 101, InvalidParameter),
        ("a", 2.5, InvalidParameter),
        ("a", True, InvalidParameter),
        ("a", None, InvalidParameter),
        ("a", math.nan, InvalidParameter),
    ],
)
def test_what_cannot_be_scored_is_refused_and_nothing_is_kept(
    world: World, source: Any, top_k: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        world.scored(source, top_k)
    assert world.admission.active == 0
    assert world.registry.status(MODEL).leases == 0


def test_an_unknown_model_is_refused(make: Callable[..., World]) -> None:
    async def run() -> None:
        async for _ in make().generation.score("a", model="llama-9", top_k=1):
            pass

    with pytest.raises(UnknownModel):
        asyncio.run(run())


def scores(ids: Sequence[int], top_k: int) -> Scores:
    rows = len(ids)
    return Scores(
        logprobs=np.full(rows, -1.0, np.float32),
        ranks=np.ones(rows, np.int32),
        entropies=np.ones(rows, np.float32),
        top_ids=np.zeros((rows, top_k), np.int32),
        top_logprobs=np.full((rows, top_k), -1.0, np.float32),
    )


@pytest.mark.parametrize("leaves", ["closes", "stops"])
def test_whoever_leaves_waits_for_nothing_and_the_model_is_kept_until_it_has_answered(
    make: Callable[..., World], leaves: str
) -> None:
    world, go, stopper = make(), threading.Event(), Stopper()
    done = threading.Event()

    def slow(ids: Sequence[int], top_k: int) -> Scores:
        go.wait()
        return scores(ids, top_k)

    world.engine.on_score = slow

    async def run() -> list[object]:
        updates: list[object] = []
        async with aclosing(world.generation.score("a b", model=MODEL, top_k=1, stopper=stopper)) as reading:
            async for update in reading:
                updates.append(update)
                if updates.count(Waiting(0, None)) == 2:
                    if leaves == "closes":
                        break
                    stopper.stop()
        return updates

    updates = asyncio.run(run())
    assert not any(isinstance(update, ScoredText) for update in updates)
    assert (world.admission.active, world.registry.status(MODEL).leases) == (1, 1)
    leave = world.admission.leave

    def left(place: Any) -> None:
        leave(place)
        done.set()

    world.admission.leave = left  # type: ignore[method-assign]
    go.set()
    assert done.wait(10)
    assert (world.admission.active, world.registry.status(MODEL).leases) == (0, 0)


def test_what_the_engine_fails_with_reaches_the_reader(make: Callable[..., World]) -> None:
    world = make()

    def crash(ids: Sequence[int], top_k: int) -> Scores:
        raise EngineCrashed(MODEL)

    world.engine.on_score = crash
    with pytest.raises(EngineCrashed):
        world.scored("a b")
    assert (world.admission.active, world.registry.status(MODEL).leases) == (0, 0)


def test_stopping_before_the_model_is_loaded_asks_it_nothing(make: Callable[..., World]) -> None:
    world, loads, stopper = make(), threading.Event(), Stopper()
    ready = world.load

    def slow() -> Any:
        loads.wait()
        return ready()

    world.load = slow

    async def run() -> list[object]:
        updates: list[object] = []
        async for update in world.generation.score("a", model=MODEL, top_k=1, stopper=stopper):
            updates.append(update)
            stopper.stop()
        return updates

    updates = asyncio.run(run())
    loads.set()
    assert updates
    assert all(isinstance(update, LoadProgress) for update in updates)
    assert world.admission.active == 0

"""Every engine keeps the contract, and the checks of it notice when one does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llama_demo.engines import Engine
from llama_demo.engines.stream import TokenStream
from llama_demo.values import Sampling, Scores, Token
from tests.engines import contract
from tests.engines.conftest import Maker
from tests.engines.contract import CHECKS, Engines

Check = Callable[[Engines], None]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_engine_keeps_the_contract(engines: Engines, check: Check) -> None:
    check(engines)


def test_closing_ends_what_is_in_flight(maker: Maker) -> None:
    contract.check_close_ends_what_is_in_flight(maker())


class Broken:
    """An engine that does one thing wrong, named in each subclass."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class IgnoresSeed(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, seed=None))


class KeepsOneSeed(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, seed=1))


class IgnoresTopK(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, top_k=0))


class IgnoresTopP(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, top_p=1.0))


class IgnoresMinP(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, min_p=0.0))


class IgnoresPenalty(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, repetition_penalty=1.0))


class IgnoresPresence(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, presence_penalty=0.0))


class CountsOnce(Broken):
    """Takes the frequency penalty as the one for presence."""

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        once = sampling.presence_penalty + sampling.frequency_penalty
        return self.engine.generate(ids, replace(sampling, presence_penalty=once, frequency_penalty=0.0))


class PenalisesLess(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        penalty = 1.0 + (sampling.repetition_penalty - 1.0) / 10
        return self.engine.generate(ids, replace(sampling, repetition_penalty=penalty))


class IgnoresCancel(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        stream = self.engine.generate(ids, sampling)
        stream._on_cancel = lambda: None
        return stream


class DropsAToken(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids[:-1], sampling)


class RunsOn(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        return self.engine.generate(ids, replace(sampling, max_new_tokens=sampling.max_new_tokens + 1))


class ShiftsScores(Broken):
    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        scores = self.engine.score(ids, top_k)
        return replace(scores, logprobs=np.roll(scores.logprobs, 1))


class RoundsScores(Broken):
    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        scores = self.engine.score(ids, top_k)
        return replace(scores, logprobs=scores.logprobs.round(2))


class ScoresDifferEachTime(Broken):
    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        scores = self.engine.score(ids, top_k)
        noise = np.random.default_rng().normal(0, 1e-6, scores.logprobs.shape)
        return replace(scores, logprobs=(scores.logprobs + noise).astype(np.float32))


class ReadsOnlyTheLastPrompt(Broken):
    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Any:
        return self.engine.score_endings([prompts[-1]] * len(prompts), endings)


class CopiesNoHalfFullBlock(Broken):
    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Any:
        made = self.engine.score_endings(prompts, endings)
        for row, prompt in zip(made, prompts, strict=True):
            if len(prompt) % 32:
                row[:, 1:] = self.engine.score_endings([prompt[: len(prompt) // 32 * 32] or prompt[:1]], endings)[
                    0, :, 1:
                ]
        return made


class PaddingShowsThrough(Broken):
    def embed(self, batch: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        width = max(map(len, batch))
        return self.engine.embed([[0] * (width - len(ids)) + list(ids) for ids in batch if ids] or batch)


class TakesTheFirstHiddenState(Broken):
    def embed(self, batch: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.engine.embed([ids[:1] for ids in batch])


class TakesEmptyTexts(Broken):
    def embed(self, batch: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.engine.embed([ids or [0] for ids in batch])


class TemperedLogprobs(Broken):
    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        stream = self.engine.generate(ids, sampling)
        put = stream.put
        heat = sampling.temperature or 1.0
        stream.put = lambda tokens: put(  # type: ignore[method-assign]
            Token(token.id, token.logprob / heat) for token in tokens
        )
        return stream


FAULTS: list[tuple[type[Broken], Check]] = [
    (IgnoresSeed, contract.check_a_seed_repeats_alone),
    (KeepsOneSeed, contract.check_a_seed_repeats_alone),
    (IgnoresTopK, contract.check_settings_are_each_requests_own),
    (IgnoresTopP, contract.check_settings_are_each_requests_own),
    (IgnoresMinP, contract.check_settings_are_each_requests_own),
    (IgnoresPenalty, contract.check_the_repetition_penalty_is_the_references),
    (PenalisesLess, contract.check_the_repetition_penalty_is_the_references),
    (IgnoresPresence, contract.check_presence_and_frequency_penalties_are_openais_or_refused),
    (CountsOnce, contract.check_presence_and_frequency_penalties_are_openais_or_refused),
    (IgnoresCancel, contract.check_cancel_ends_one_request_alone),
    (DropsAToken, contract.check_greedy_is_the_references),
    (DropsAToken, contract.check_many_threads_are_all_served),
    (RunsOn, contract.check_a_text_ends_for_a_reason),
    (ShiftsScores, contract.check_scores_are_the_references),
    (RoundsScores, contract.check_scores_are_the_references),
    (ScoresDifferEachTime, contract.check_scores_repeat),
    (ReadsOnlyTheLastPrompt, contract.check_endings_are_scored_as_after_each_prompt),
    (CopiesNoHalfFullBlock, contract.check_endings_are_scored_as_after_each_prompt),
    (PaddingShowsThrough, contract.check_embedding_does_not_depend_on_company),
    (TakesTheFirstHiddenState, contract.check_embedding_is_the_references),
    (TakesEmptyTexts, contract.check_empty_ids_are_refused),
    (TemperedLogprobs, contract.check_logprobs_of_generate_are_scores),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=lambda value: value.__name__.removeprefix("check_"))
def test_a_broken_engine_is_caught(tiny_engines: Engines, fault: type[Broken], check: Check) -> None:
    broken: Any = fault(tiny_engines.generator)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(replace(tiny_engines, generator=broken, analyst=broken))

"""What every engine must do, as plain functions that raise `AssertionError`: so they can be shown to fail as well."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_demo.api_errors import UnsupportedParameter
from llama_demo.engines import Engine
from llama_demo.engines.stream import TokenStream
from llama_demo.errors import Closing
from llama_demo.values import Sampling, Token

LONG = Sampling(max_new_tokens=400, temperature=1.0, seed=3)
"""For requests that are not meant to reach their end."""


@dataclass
class Engines:
    """An engine under test with its reference: the same weights in transformers, in float32.

    `generator` and `analyst` are one object where an engine does both. `reference` gives the plain model.
    `penalises` says that presence and frequency penalties are honoured: elsewhere they are refused.
    `exact` says that the engine computes in float32 itself, so that its texts and scores can be held to it closely;
    else `tolerance` is how far log-probabilities may be off on average.
    """

    generator: Engine
    analyst: Engine
    load_reference: Callable[[], Any]
    prompt: tuple[int, ...]
    exact: bool = True
    tolerance: float = 1e-4
    tokens: int = 24
    """The length of the texts: shorter where the engine is slow."""
    penalises: bool = True

    @property
    def greedy(self) -> Sampling:
        return Sampling(max_new_tokens=self.tokens, temperature=0.0)

    @property
    def hot(self) -> Sampling:
        return Sampling(max_new_tokens=self.tokens, temperature=1.0, top_p=1.0, top_k=0, seed=7)

    @cached_property
    def reference(self) -> Any:
        return self.load_reference()

    def prompts(self, count: int) -> list[tuple[int, ...]]:
        """`count` different prompts: the usual one, begun later and later."""
        return [self.prompt[place % (len(self.prompt) - 2) :] for place in range(count)]


def load_folder(folder: Path, **options: Any) -> Any:
    """The reference model of a Hugging Face folder, or of the GGUF file in it that `gguf_file` names."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, **options).eval()


def ids_of(stream: TokenStream) -> list[int]:
    return [token.id for token in stream]


def reference_greedy(engines: Engines, prompt: Sequence[int], count: int, **settings: float) -> list[int]:
    """transformers' own plain `generate`, without ending early."""
    import torch

    with torch.no_grad():
        made = engines.reference.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            temperature=None,
            top_p=None,
            top_k=None,
            **settings,
        )
    return [int(token) for token in made[0, len(prompt) :]]


def check_greedy_is_the_references(engines: Engines) -> None:
    made = ids_of(engines.generator.generate(engines.prompt, engines.greedy))
    wanted = reference_greedy(engines, engines.prompt, len(made))
    assert made, "nothing was made"
    assert made == wanted


def check_a_seed_repeats_alone(engines: Engines) -> None:
    first = ids_of(engines.generator.generate(engines.prompt, engines.hot))
    assert ids_of(engines.generator.generate(engines.prompt, engines.hot)) == first
    others = [replace(engines.hot, seed=seed) for seed in (8, 9, 10)]
    assert any(ids_of(engines.generator.generate(engines.prompt, other)) != first for other in others), (
        "all seeds give the same text"
    )


def check_settings_are_each_requests_own(engines: Engines) -> None:
    """Greedy in three ways and penalised, side by side with hot ones."""
    generator, prompt = engines.generator, engines.prompt
    greedy = ids_of(generator.generate(prompt, engines.greedy))
    hot = [generator.generate(prompt, replace(engines.hot, temperature=2.0, seed=seed)) for seed in range(3)]
    narrow = {
        "top_k": generator.generate(prompt, replace(engines.hot, temperature=2.0, top_k=1)),
        "top_p": generator.generate(prompt, replace(engines.hot, top_p=0.01)),
        "min_p": generator.generate(prompt, replace(engines.hot, min_p=1.0)),
        "temperature": generator.generate(prompt, replace(engines.hot, temperature=0.001)),
    }
    for name, stream in narrow.items():
        assert ids_of(stream) == greedy, f"{name} is not honoured"
    assert any(ids_of(stream) != greedy for stream in hot), "the hot ones are not hot"


def check_the_repetition_penalty_is_the_references(engines: Engines) -> None:
    """It changes the text, and is CTRL's own, prompt included, beside requests that have none."""
    plain = engines.generator.generate(engines.prompt, engines.greedy)
    stream = engines.generator.generate(engines.prompt, replace(engines.greedy, repetition_penalty=1.7))
    made, unpenalised = ids_of(stream), ids_of(plain)
    assert made != unpenalised
    assert made == reference_greedy(engines, engines.prompt, len(made), repetition_penalty=1.7)


def reference_penalised(engines: Engines, sampling: Sampling) -> list[int]:
    """The likeliest token each time, after the penalties as OpenAI defines them: taken from the logits of the tokens
    that were written already, whatever their sign; the prompt does not count."""
    written: Counter[int] = Counter()
    ids = list(engines.prompt)
    for _ in range(sampling.max_new_tokens):
        logits = reference_logprobs(engines, ids)[-1]  # one number less each: the order is the same
        for token, times in written.items():
            logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * times
        ids.append(int(logits.argmax()))
        written[ids[-1]] += 1
    return ids[len(engines.prompt) :]


def check_presence_and_frequency_penalties_are_openais_or_refused(engines: Engines) -> None:
    for name, value in (("presence_penalty", 1.5), ("frequency_penalty", 1.2), ("frequency_penalty", -2.0)):
        sampling = replace(engines.greedy, **{name: value})  # type: ignore[arg-type]
        if engines.penalises:
            made = ids_of(engines.generator.generate(engines.prompt, sampling))
            assert made == reference_penalised(engines, sampling), f"{name} {value} is another"
        else:
            with pytest.raises(UnsupportedParameter) as refused:
                engines.generator.generate(engines.prompt, sampling)
            assert refused.value.name == name


def check_cancel_ends_one_request_alone(engines: Engines) -> None:
    other = engines.generator.generate(engines.prompt, engines.hot)
    stream = engines.generator.generate(engines.prompt, LONG)
    tokens = iter(stream)
    next(tokens)
    stream.cancel()
    before = stream.steps
    for _ in tokens:
        continue
    after = stream.steps
    assert stream.finish_reason == "cancelled"
    assert after - before <= 8, "it went on after the cancel"
    ids_of(engines.generator.generate(engines.prompt, engines.greedy))
    assert stream.steps == after, "a cancelled request took part in a later step"
    assert len(ids_of(other)) > 0
    assert other.finish_reason in ("length", "stop")


def check_a_cancel_leaves_others_untouched(engines: Engines) -> None:
    """In an engine that computes exactly: the others' seeded text is the one it is alone."""
    alone = ids_of(engines.generator.generate(engines.prompt, engines.hot))
    stopped = engines.generator.generate(engines.prompt, LONG)
    stream = engines.generator.generate(engines.prompt, engines.hot)
    next(iter(stopped))
    stopped.cancel()
    made = ids_of(stream)
    assert stream.finish_reason in ("length", "stop")
    if engines.exact:
        assert made == alone


def check_a_text_ends_for_a_reason(engines: Engines) -> None:
    stream = engines.generator.generate(engines.prompt, Sampling(max_new_tokens=3, temperature=0.0))
    assert (len(ids_of(stream)), stream.finish_reason, stream.steps) == (3, "length", 3)


def check_empty_ids_are_refused(engines: Engines) -> None:
    for call in (
        lambda: engines.generator.generate([], engines.greedy),
        lambda: engines.analyst.score([], 1),
        lambda: engines.analyst.embed([engines.prompt, []]),
    ):
        with pytest.raises(ValueError, match=r"empty|one or more"):
            call()


def check_many_threads_are_all_served(engines: Engines) -> None:
    results: dict[int, list[int]] = {}
    prompts = engines.prompts(8)

    def ask(place: int) -> None:
        results[place] = ids_of(engines.generator.generate(prompts[place], engines.greedy))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(8))
    if engines.exact:
        for place, made in results.items():
            assert made == reference_greedy(engines, prompts[place], len(made)), f"request {place} got another's text"


def check_close_ends_what_is_in_flight(engines: Engines) -> None:
    """The last check: the engine is gone after it."""
    streams = [engines.generator.generate(engines.prompt, LONG) for _ in range(3)]
    engines.generator.close()
    engines.analyst.close()
    assert not engines.generator.healthy
    for stream in streams:
        with pytest.raises(Closing):
            ids_of(stream)
    with pytest.raises(Closing):
        engines.generator.generate(engines.prompt, engines.greedy)
    with pytest.raises(Closing):
        engines.analyst.score(engines.prompt, 1)


def reference_logprobs(engines: Engines, ids: Sequence[int]) -> Any:
    """float32 [len(ids), vocabulary]: row i is of the token that follows ids[:i + 1]."""
    import torch

    with torch.no_grad():
        return engines.reference(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1).numpy()


def check_scores_are_the_references(engines: Engines) -> None:
    ids = list(engines.prompt)
    scores, wanted = engines.analyst.score(ids, 3), reference_logprobs(engines, ids)
    own = wanted[np.arange(len(ids) - 1), ids[1:]]
    assert scores.logprobs.shape == (len(ids),)
    assert scores.top_ids.shape == scores.top_logprobs.shape == (len(ids), 3)
    assert np.isnan(scores.logprobs[0])
    assert np.isnan(scores.entropies[0])
    assert np.isnan(scores.top_logprobs[0]).all()
    assert scores.ranks[0] == 0
    assert (scores.top_ids[0] == -1).all()
    assert np.abs(scores.logprobs[1:] - own).mean() <= engines.tolerance
    entropies = -(np.exp(wanted) * wanted).sum(-1)[:-1]
    assert np.abs(scores.entropies[1:] - entropies).mean() <= engines.tolerance
    assert (np.diff(scores.top_logprobs[1:], axis=1) <= 0).all(), "alternatives are not best first"
    if engines.exact:
        lead = wanted[:-1] - own[:, None]
        least, most = (1 + (lead > near).sum(-1) for near in (engines.tolerance, -engines.tolerance))
        assert ((least <= scores.ranks[1:]) & (scores.ranks[1:] <= most)).all()
        best = -np.sort(-wanted[:-1], axis=-1)[:, :3]
        assert np.abs(scores.top_logprobs[1:] - best).max() <= engines.tolerance
        named = np.take_along_axis(wanted[:-1], scores.top_ids[1:].astype(np.int64), axis=-1)
        assert np.abs(scores.top_logprobs[1:] - named).max() <= engines.tolerance
    first = scores.ranks[1:] == 1
    assert (scores.top_ids[1:, 0][first] == np.array(ids[1:])[first]).all()


def check_scores_repeat(engines: Engines) -> None:
    first, second = (engines.analyst.score(engines.prompt, 4) for _ in range(2))
    for name in ("logprobs", "ranks", "entropies", "top_ids", "top_logprobs"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def check_embedding_does_not_depend_on_company(engines: Engines) -> None:
    batch = [engines.prompt[:size] for size in (2, len(engines.prompt), 5, 3)]
    together = engines.analyst.embed(batch)
    assert together.dtype == np.float32
    for place, ids in enumerate(batch):
        alone = engines.analyst.embed([ids])[0]
        assert np.abs(together[place] - alone).max() <= max(1e-4, engines.tolerance) * max(1.0, np.abs(alone).max())


def check_embedding_is_the_references(engines: Engines) -> None:
    import torch

    with torch.no_grad():
        hidden = engines.reference.base_model(torch.tensor([list(engines.prompt)])).last_hidden_state[0, -1].numpy()
    made = engines.analyst.embed([engines.prompt])[0]
    closeness = float(hidden @ made / np.linalg.norm(hidden) / np.linalg.norm(made))
    assert closeness > (1 - 1e-5 if engines.exact else 0.99)


def check_endings_are_scored_as_after_each_prompt(engines: Engines) -> None:
    """Prompts around a block's border and over a slice's, endings of one token and of several, more than one pass."""
    ids = np.random.default_rng(5).integers(3, 380, 300).tolist()
    prompts = [ids[:length] for length in (1, 5, 31, 32, 64, 90, 300)]
    endings = [ids[start : start + length] for start, length in enumerate((1, 3, 2, 4, 1) + (3,) * 16)]
    made = engines.analyst.score_endings(prompts, endings)
    assert made.shape == (len(prompts), len(endings), 4)
    assert made.dtype == np.float32
    short = engines.analyst.score_endings(prompts, [ending[:1] for ending in endings])
    assert np.abs(short[:, :, 0] - made[:, :, 0]).max() <= engines.tolerance
    for row, prompt in zip(made, prompts, strict=True):
        for found, ending in zip(row[:7], endings[:7], strict=True):
            wanted = engines.analyst.score([*prompt, *ending], 0).logprobs[len(prompt) :]
            assert np.abs(found[: len(ending)] - wanted).max() <= max(1e-4, engines.tolerance)
            assert np.isnan(found[len(ending) :]).all()


def check_logprobs_of_generate_are_scores(engines: Engines) -> None:
    """A token's logprob is the model's own, whatever the temperature and the penalty made of it."""
    for sampling in (engines.greedy, Sampling(engines.tokens, 1.5, 0.9, 20, repetition_penalty=1.2, seed=5)):
        tokens: list[Token] = list(engines.generator.generate(engines.prompt, sampling))
        scores = engines.analyst.score([*engines.prompt, *(token.id for token in tokens)], 1)
        wanted = scores.logprobs[len(engines.prompt) :]
        assert np.abs(wanted - [token.logprob for token in tokens]).mean() <= 10 * engines.tolerance


CHECKS: list[Callable[[Engines], None]] = [
    check
    for name, check in sorted(globals().items())
    if name.startswith("check_") and check is not check_close_ends_what_is_in_flight
]

"""What is the transformers engine's own: loading, its sampler, a full cache, a crash, and seeds among others."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llama_demo.engines.transformers import TransformersEngine
from llama_demo.engines.transformers_sampler import Sampler, choose
from llama_demo.errors import BadCheckpoint, DoesNotFit, EngineCrashed, PromptTooLong
from llama_demo.values import Sampling
from tests.engines.contract import ids_of

Start = Callable[..., TransformersEngine]
PROMPT = (1, 40, 77, 120, 55, 301)
PAGE_BYTES = 32 * 2 * 3 * 2 * 32 * 4
"""Tokens x (key and value) x layers x KV heads x head size x 4 bytes."""


@pytest.fixture
def start(tiny_folder: Path) -> Iterator[Start]:
    made: list[TransformersEngine] = []

    def make(folder: Path = tiny_folder, **changes: Any) -> TransformersEngine:
        settings: dict[str, Any] = {"name": "tiny", "eos_ids": (), "context_tokens": 256, **changes}
        made.append(TransformersEngine(folder, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def hot(seed: int | None, tokens: int = 25) -> Sampling:
    return Sampling(tokens, temperature=1.0, top_p=1.0, top_k=0, seed=seed)


def test_a_seeded_text_among_others_is_the_one_it_is_alone(start: Start) -> None:
    """In float32, in at least 95 % of 40 trials: half of the company is cancelled on the way."""
    engine, same = start(reproducible=True), 0
    for trial in range(40):
        alone = ids_of(engine.generate(PROMPT, hot(trial)))
        company = [engine.generate([*PROMPT, other], hot(None, 10 + other)) for other in range(3)]
        stream = engine.generate(PROMPT, hot(trial))
        company += [engine.generate([*PROMPT * 3, other], hot(None, 15)) for other in range(3)]
        next(iter(company[0]))
        for other in company[::2]:
            other.cancel()
        same += ids_of(stream) == alone
        for other in company:
            ids_of(other)
    assert same >= 38


def test_an_end_token_ends_the_text_and_is_not_part_of_it(start: Start) -> None:
    greedy = Sampling(20, temperature=0.0)
    tokens = list(start().generate(PROMPT, greedy))
    text = [token.id for token in tokens]
    end = next(place for place in range(3, 20) if text[place] not in text[:place])
    stream = start(eos_ids={text[end]}).generate(PROMPT, greedy)
    assert ids_of(stream) == text[:end]
    assert (stream.finish_reason, stream.steps) == ("stop", end)
    assert stream.end is not None
    assert stream.end.id == text[end]
    assert stream.end.logprob == pytest.approx(tokens[end].logprob, abs=1e-4)


def test_what_the_context_has_no_room_for_is_refused_or_cut(start: Start) -> None:
    engine = start(context_tokens=64)
    with pytest.raises(PromptTooLong):
        engine.generate([5] * 64, Sampling(1))
    with pytest.raises(PromptTooLong):
        engine.score([5] * 65, 1)
    stream = engine.generate([5] * 60, Sampling(100))
    assert len(ids_of(stream)) == 4
    assert stream.finish_reason == "length"


@pytest.mark.parametrize("ids", [[-1], [384], [5, 10**9]])
def test_an_unknown_id_is_refused_and_disturbs_nobody(start: Start, ids: list[int]) -> None:
    engine = start()
    stream = engine.generate(PROMPT, hot(1))
    for call in (lambda: engine.generate(ids, hot(1)), lambda: engine.score(ids, 1), lambda: engine.embed([ids])):
        with pytest.raises(ValueError, match="ids must be from 0 to 383"):
            call()
    assert len(ids_of(stream)) == 25


def test_a_full_cache_delays_requests_and_changes_none(start: Start) -> None:
    """Nine pages are one context and one page: requests that outgrow them together are started anew in turn. One text
    in four may part from its solo run, for the rounding."""
    small, roomy = start(cache_bytes=9 * PAGE_BYTES, reproducible=True), start(reproducible=True)
    streams = [small.generate(PROMPT, hot(seed, 200)) for seed in range(4)]
    same = sum(ids_of(stream) == ids_of(roomy.generate(PROMPT, hot(seed, 200))) for seed, stream in enumerate(streams))
    assert [(stream.steps, stream.finish_reason) for stream in streams] == [(200, "length")] * 4
    assert same >= 3


def test_cancelling_the_one_that_filled_the_cache_lets_the_waiting_in(start: Start) -> None:
    """Two texts of 240 do not fit: by the first one's 200th token the second has lost its pages and waits."""
    engine = start(cache_bytes=9 * PAGE_BYTES)
    first, second = (engine.generate(PROMPT, hot(seed, 240)) for seed in range(2))
    for _, _ in zip(range(200), first, strict=False):
        continue
    assert second.steps < 200
    first.cancel()
    reader = threading.Thread(target=ids_of, args=(second,), daemon=True)
    reader.start()
    reader.join(30)
    assert second.finish_reason == "length"


def test_a_cache_for_less_than_one_context_is_refused_with_its_numbers(start: Start) -> None:
    with pytest.raises(DoesNotFit) as refused:
        start(cache_bytes=9 * PAGE_BYTES - 1)
    assert (refused.value.needed_bytes, refused.value.free_bytes) == (9 * PAGE_BYTES, 9 * PAGE_BYTES - 1)


def test_the_cache_takes_no_more_than_it_is_given(start: Start) -> None:
    small, large = start(cache_bytes=10 * PAGE_BYTES), start(cache_bytes=30 * PAGE_BYTES)
    assert large.resident_bytes - small.resident_bytes == 20 * PAGE_BYTES


def test_a_crash_reaches_every_request_and_the_engine_is_unhealthy_for_good(start: Start) -> None:
    engine = start()
    streams = [engine.generate(PROMPT, hot(seed, 240)) for seed in range(3)]
    next(iter(streams[0]))

    def burst(*_: object) -> None:
        raise RuntimeError("a layer burst")

    engine._model.base_model.layers[1].register_forward_hook(burst)
    for stream in streams:
        with pytest.raises(EngineCrashed) as crash:
            ids_of(stream)
        assert "a layer burst" in str(crash.value.__cause__)
    assert not engine.healthy
    for call in (lambda: engine.generate(PROMPT, hot(1)), lambda: engine.score(PROMPT, 1)):
        with pytest.raises(EngineCrashed):
            call()


def test_logits_that_are_no_numbers_end_their_request_alone(start: Start) -> None:
    engine = start()
    other = engine.generate(PROMPT, hot(1, 60))
    with torch.no_grad():
        engine._model.get_input_embeddings().weight[9] = float("nan")
    with pytest.raises(EngineCrashed) as crash:
        ids_of(engine.generate([9], hot(2)))
    assert isinstance(crash.value.__cause__, FloatingPointError)
    assert engine.healthy
    assert other.finish_reason in (None, "length")
    other.cancel()


def test_a_long_text_is_scored_in_slices_as_in_one_piece(start: Start, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = np.random.default_rng(0).integers(0, 384, 400).tolist()
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
        wanted = model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    made = start(context_tokens=400).score(ids, 0)
    assert np.abs(made.logprobs[1:] - wanted[np.arange(399), ids[1:]]).max() <= 1e-4


def test_scores_and_features_are_served_while_texts_are_made(start: Start) -> None:
    engine = start()
    alone, features = engine.score(PROMPT, 3), engine.embed([PROMPT])
    streams = [engine.generate(PROMPT, hot(seed, 200)) for seed in range(3)]
    np.testing.assert_array_equal(engine.score(PROMPT, 3).logprobs, alone.logprobs)
    np.testing.assert_array_equal(engine.embed([PROMPT]), features)
    assert [len(ids_of(stream)) for stream in streams] == [200] * 3


@pytest.mark.parametrize(("dtype", "element"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_one_asked_for(start: Start, dtype: str, element: torch.dtype) -> None:
    assert start(dtype=dtype)._model.dtype == element


def test_reproducible_computes_in_float32(start: Start) -> None:
    assert start(dtype="bfloat16", reproducible=True)._model.dtype == torch.float32


def _without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


DAMAGES: list[Callable[[Path], None]] = [
    _without_a_tensor,
    _cut_short,
    lambda folder: (folder / "model.safetensors").unlink(),
    lambda folder: (folder / "config.json").unlink(),
    _no_json,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["a tensor is missing", "cut", "no weights", "no config", "no JSON"])
def test_a_damaged_folder_is_refused(
    start: Start, tiny_folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    damage(folder)
    with pytest.raises(BadCheckpoint) as refused:
        start(folder)
    assert refused.value.path == str(folder)


def test_torchs_out_of_memory_is_memory_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(MemoryError):
        start()


def _drawn(logits: list[float], sampling: Sampling, prompt: tuple[int, ...] = (), draws: int = 1500) -> Counter[int]:
    sampler = Sampler(sampling, prompt)
    row = torch.tensor([logits])
    return Counter(choose(row, [sampler])[0].id for _ in range(draws))


def test_the_sampler_draws_as_often_as_the_chances_say() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    counts = _drawn(logits, Sampling(9, 1.0, 1.0, 0, seed=1))
    np.testing.assert_allclose([counts[token] / 1500 for token in range(4)], [0.5, 0.3, 0.15, 0.05], atol=0.05)
    cold = _drawn(logits, Sampling(9, 0.5, 1.0, 0, seed=1))
    squared = np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365
    np.testing.assert_allclose([cold[token] / 1500 for token in range(4)], squared, atol=0.05)


def test_top_k_top_p_and_min_p_cut_where_transformers_cuts() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    assert set(_drawn(logits, Sampling(9, 1.0, 1.0, 2, seed=1))) == {0, 1}
    assert set(_drawn(logits, Sampling(9, 1.0, 0.79, 0, seed=1))) == {0, 1}
    assert set(_drawn(logits, Sampling(9, 1.0, 0.81, 0, seed=1))) == {0, 1, 2}
    assert set(_drawn(logits, Sampling(9, 1.0, 1.0, 0, min_p=0.2, seed=1))) == {0, 1, 2}


def test_the_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    sampler = Sampler(Sampling(9, 0.0, repetition_penalty=2.0), (0,))
    row = torch.tensor([[4.0, 3.0, 2.5, -1.0]])
    assert [choose(row, [sampler])[0].id for _ in range(3)] == [1, 2, 0]


def test_a_tiny_temperature_overflows_nothing() -> None:
    assert set(_drawn([1.0, 0.999, -5.0], Sampling(9, 1e-320, 1.0, 0, seed=1), draws=10)) == {0}


def test_a_row_does_not_depend_on_its_neighbours_settings() -> None:
    rows = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    kinds = [Sampling(9, 1.0, 0.9, 5, seed=1), Sampling(9, 1.5, 1.0, 0, seed=2), Sampling(9, 1.0, 0.9, 60, seed=3)]
    together = choose(rows, [Sampler(kind, ()) for kind in kinds])
    assert together == [choose(rows[place : place + 1], [Sampler(kinds[place], ())])[0] for place in range(3)]


def test_sixteen_bits_on_a_cpu_keep_the_rotary_frequencies_in_thirty_two(
    start: Start, tiny_folder: Path, tmp_path: Path
) -> None:
    """float16 becomes bfloat16 there; frequencies of eight digits would put far tokens in the wrong place."""
    from llama_demo.checkpoints.convert import convert

    convert(tiny_folder, tmp_path / "half", to="hf", dtype="float16")
    half, whole = start(tmp_path / "half")._model, start()._model
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.base_model.rotary_emb.inv_freq, whole.base_model.rotary_emb.inv_freq)

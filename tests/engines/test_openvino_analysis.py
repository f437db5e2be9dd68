"""Scores and features of the embedded model from OpenVINO's second graph, in its real process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from llama_demo.engines import openvino_worker
from llama_demo.engines.openvino_analysis import OpenVINOAnalysis
from llama_demo.engines.openvino_graph import Graph
from llama_demo.errors import BadCheckpoint, Closing, EngineCrashed, PromptTooLong, Unsupported
from llama_demo.values import Scores
from tests.engines import openvino_model
from tests.engines.openvino_model import GREEDY, PROMPT, ids_of, start

TEXT = tuple(int(token) for token in np.random.default_rng(3).integers(100, 40_000, 600))


@pytest.fixture(scope="module")
def model(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openvino_model.q8_0(embedded_gguf, tmp_path_factory.getbasetemp())


def open_analysis(model: Path, **changes: object) -> OpenVINOAnalysis:
    settings: dict[str, object] = {"name": "embedded", "context_tokens": 4096, "reproducible": True, **changes}
    return OpenVINOAnalysis(model, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def analysis(model: Path) -> Iterator[OpenVINOAnalysis]:
    analysis = open_analysis(model)
    yield analysis
    analysis.close()


@pytest.fixture(scope="module")
def scores(analysis: OpenVINOAnalysis) -> Scores:
    return analysis.score(TEXT, 5)


def test_every_array_has_the_shape_and_type_it_says(scores: Scores) -> None:
    assert [array.dtype for array in (scores.logprobs, scores.entropies, scores.top_logprobs)] == [np.float32] * 3
    assert [array.dtype for array in (scores.ranks, scores.top_ids)] == [np.int32] * 2
    assert scores.logprobs.shape == scores.ranks.shape == scores.entropies.shape == (len(TEXT),)
    assert scores.top_ids.shape == scores.top_logprobs.shape == (len(TEXT), 5)


def test_nothing_is_said_of_the_first_token(scores: Scores) -> None:
    assert np.isnan([scores.logprobs[0], scores.entropies[0], *scores.top_logprobs[0]]).all()
    assert scores.ranks[0] == 0
    assert (scores.top_ids[0] == -1).all()
    assert np.isfinite(scores.logprobs[1:]).all()


def test_alternatives_come_best_first_and_agree_with_ranks_and_log_probabilities(analysis: OpenVINOAnalysis) -> None:
    ids = list(PROMPT)
    for _ in range(8):
        ids.append(int(analysis.score([*ids, 0], 1).top_ids[-1, 0]))
    scores = analysis.score(ids, 50)
    assert (np.diff(scores.top_logprobs[1:], axis=1) <= 0).all()
    for position in range(1, len(ids)):
        rank = int(scores.ranks[position])
        if rank <= 50:
            assert scores.top_logprobs[position, rank - 1] == pytest.approx(scores.logprobs[position], abs=1e-4)
    assert (scores.ranks[len(PROMPT) :] == 1).all()


def test_the_whole_vocabularys_probabilities_sum_to_one_and_give_the_entropy(analysis: OpenVINOAnalysis) -> None:
    scores = analysis.score(PROMPT[:3], 10**6)
    every = scores.top_logprobs[1:].astype(np.float64)
    assert every.shape[1] == 49_152
    assert np.exp(every).sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    assert -(np.exp(every) * every).sum(axis=1) == pytest.approx(scores.entropies[1:], abs=1e-3)
    assert sorted(scores.top_ids[1]) == list(range(49_152))


def test_no_alternatives_may_be_asked_for(analysis: OpenVINOAnalysis) -> None:
    assert analysis.score(PROMPT, 0).top_ids.shape == (len(PROMPT), 0)


def test_a_second_call_gives_the_same_answer(analysis: OpenVINOAnalysis, scores: Scores) -> None:
    again = analysis.score(TEXT, 5)
    assert np.array_equal(again.logprobs, scores.logprobs, equal_nan=True)
    assert np.array_equal(again.top_ids, scores.top_ids)


def test_a_token_is_scored_by_those_before_it_alone_across_slices(analysis: OpenVINOAnalysis, scores: Scores) -> None:
    shorter = analysis.score(TEXT[:300], 5)
    assert shorter.logprobs[1:] == pytest.approx(scores.logprobs[1:300], abs=2e-3)
    other_start = analysis.score((5, *TEXT[1:600]), 5)
    assert abs(other_start.logprobs[300] - scores.logprobs[300]) > 1e-5


def test_greedy_generation_takes_the_likeliest_scored_token(model: Path, analysis: OpenVINOAnalysis) -> None:
    engine = start(model, eos_ids=(), reproducible=True, cache_bytes=100_000_000)
    try:
        tokens = list(engine.generate(PROMPT, GREEDY))
    finally:
        engine.close()
    scores = analysis.score([*PROMPT, *ids_of(tokens)], 1)
    assert scores.top_ids[len(PROMPT) :, 0].tolist() == ids_of(tokens)
    assert scores.logprobs[len(PROMPT) :] == pytest.approx([token.logprob for token in tokens], abs=1e-3)


def test_a_text_has_the_same_features_alone_and_in_a_batch(analysis: OpenVINOAnalysis) -> None:
    batch = [TEXT[:length] for length in (7, 300, 1, 64, 33, 600, 120)]
    together = analysis.embed(batch)
    assert together.shape == (7, 576)
    assert together.dtype == np.float32
    for ids, vector in zip(batch, together, strict=True):
        assert analysis.embed([ids])[0] == pytest.approx(vector, abs=1e-4)
    assert np.abs(together[0] - together[3]).max() > 0.1


def test_an_empty_batch_has_no_features(analysis: OpenVINOAnalysis) -> None:
    assert analysis.embed([]).shape == (0, 576)


@pytest.mark.slow
def test_scoring_4096_tokens_stays_within_300_mb(analysis: OpenVINOAnalysis) -> None:
    process = psutil.Process(analysis.pid)
    before, peak, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        analysis.score((TEXT * 7)[:4096], 5)
    finally:
        done.set()
        watcher.join()
    assert 0 < peak - before <= 300_000_000
    assert peak <= analysis.resident_bytes * 1.15


def test_calls_from_several_threads_each_get_their_own_answer(analysis: OpenVINOAnalysis) -> None:
    answers: dict[int, Scores] = {}

    def ask(first: int) -> None:
        answers[first] = analysis.score(TEXT[first : first + 50], 1)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, scores in answers.items():
        expected = analysis.score(TEXT[first : first + 50], 1)
        assert np.array_equal(scores.logprobs, expected.logprobs, equal_nan=True)


def test_what_it_cannot_take_is_refused(analysis: OpenVINOAnalysis) -> None:
    with pytest.raises(PromptTooLong):
        analysis.score([7] * 4097, 1)
    with pytest.raises(ValueError, match="ids"):
        analysis.embed([[1], []])
    with pytest.raises(Unsupported):
        analysis.generate(PROMPT, GREEDY)


def test_a_killed_process_reaches_the_caller_and_closing_ends_it(model: Path) -> None:
    analysis = open_analysis(model)
    failures: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(EngineCrashed) as raised:
            analysis.score((TEXT * 7)[:4096], 1)
        failures.append(raised.value)

    thread = threading.Thread(target=ask)
    thread.start()
    os.kill(analysis.pid, signal.SIGKILL)
    thread.join()
    assert len(failures) == 1
    assert not analysis.healthy
    analysis.close()
    second = open_analysis(model)
    process = psutil.Process(second.pid)
    second.close()
    assert not process.is_running()
    with pytest.raises(Closing):
        second.score(PROMPT, 1)


def test_a_damaged_file_is_a_bad_checkpoint(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BadCheckpoint):
        open_analysis(damaged)


@pytest.mark.usefixtures("analysis")
def test_it_starts_as_many_threads_as_a_container_has_time_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown by a number that OpenVINO refuses."""
    monkeypatch.setattr(openvino_worker, "core_limit", lambda: -5)
    with pytest.raises(RuntimeError, match=r"INFERENCE_NUM_THREADS.*-5"):
        Graph(model.with_suffix(".openvino") / "openvino_model.xml", reproducible=True)

"""The OpenVINO engine on the embedded model, in its real process."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llama_demo.engines import openvino_worker
from llama_demo.engines.openvino import OpenVINOEngine
from llama_demo.engines.openvino_messages import Load
from llama_demo.engines.stream import TokenStream
from llama_demo.errors import BadCheckpoint, Closing, DoesNotFit, EngineCrashed, PromptTooLong, Unsupported
from llama_demo.values import Sampling
from tests.engines import openvino_model
from tests.engines.openvino_model import EOS_ID, GREEDY, PROMPT, SEEDED, ids_of, start

LONG = Sampling(max_new_tokens=900, temperature=0.0)


@pytest.fixture(scope="module")
def model(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openvino_model.q8_0(embedded_gguf, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[OpenVINOEngine]:
    """Shared by the tests that leave it as it was; without an end token, so that lengths are known."""
    engine = start(model, eos_ids=())
    yield engine
    engine.close()


def first_token(stream: TokenStream) -> int:
    return next(iter(stream)).id


def test_greedy_text_is_the_same_every_time(engine: OpenVINOEngine) -> None:
    texts = [ids_of(engine.generate(PROMPT, GREEDY)) for _ in range(3)]
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) == GREEDY.max_new_tokens


def test_a_seed_repeats_its_text_and_another_gives_another(engine: OpenVINOEngine) -> None:
    other = Sampling(max_new_tokens=40, temperature=1.0, top_p=1.0, top_k=0, seed=8)
    texts = [ids_of(engine.generate(PROMPT, sampling)) for sampling in (SEEDED, SEEDED, other)]
    assert texts[0] == texts[1] != texts[2]


def test_a_seed_repeats_its_text_whether_or_not_its_prompt_is_cached(engine: OpenVINOEngine) -> None:
    prompt = tuple(range(5000, 5300))
    assert ids_of(engine.generate(prompt, SEEDED)) == ids_of(engine.generate(prompt, SEEDED))


def test_no_seed_is_a_new_text_every_time(engine: OpenVINOEngine) -> None:
    free = Sampling(max_new_tokens=40, temperature=1.0, top_p=1.0, top_k=0)
    assert ids_of(engine.generate(PROMPT, free)) != ids_of(engine.generate(PROMPT, free))


@pytest.mark.parametrize(
    "narrow",
    [
        {"top_k": 1},
        {"top_k": 0, "top_p": 0.01},
        {"top_k": 0, "min_p": 1.0},
        {"top_k": 0, "temperature": 0.001},
        {"top_k": 0, "temperature": 1e-40},
        {"top_k": 0, "temperature": 5e-324},
    ],
    ids=str,
)
def test_each_sampling_setting_alone_can_narrow_the_choice_to_one(
    engine: OpenVINOEngine, narrow: dict[str, float]
) -> None:
    wide = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 3, "max_new_tokens": 5}
    greedy = Sampling(max_new_tokens=5, temperature=0.0)
    best = ids_of(engine.generate(PROMPT, greedy))
    assert ids_of(engine.generate(PROMPT, Sampling(**{**wide, **narrow}))) == best  # type: ignore[arg-type]
    assert ids_of(engine.generate(PROMPT, Sampling(**wide))) != best  # type: ignore[arg-type]


def test_the_repetition_penalty_reads_the_prompt_and_the_text(engine: OpenVINOEngine) -> None:
    counting = tuple([30, 31, 32, 33] * 8)
    plain = ids_of(engine.generate(counting, GREEDY))
    penalised = ids_of(engine.generate(counting, Sampling(max_new_tokens=40, temperature=0.0, repetition_penalty=10.0)))
    assert set(plain) & set(counting)
    assert not set(penalised) & set(counting)
    assert len(set(penalised)) == len(penalised)


def test_requests_side_by_side_keep_their_own_settings(engine: OpenVINOEngine) -> None:
    short = Sampling(max_new_tokens=5, temperature=0.0)
    streams = [engine.generate(PROMPT, sampling) for sampling in (GREEDY, short, SEEDED)]
    greedy, five, seeded = (ids_of(stream) for stream in streams)
    assert five == greedy[:5]
    assert seeded != greedy
    assert [stream.finish_reason for stream in streams] == ["length"] * 3


def test_log_probabilities_are_the_models_own_whatever_the_temperature(engine: OpenVINOEngine) -> None:
    (plain,) = engine.generate(PROMPT, Sampling(max_new_tokens=1, temperature=0.0))
    (hot,) = engine.generate(PROMPT, Sampling(max_new_tokens=1, temperature=5.0, top_k=1))
    assert plain.id == hot.id
    # The second reads a kept prefix, which the fast profile rounds; after temperature 5 it would be near -10.
    assert plain.logprob == pytest.approx(hot.logprob, abs=0.5)
    assert -math.inf < plain.logprob < 0


def test_the_end_token_ends_the_text_and_is_no_part_of_it(engine: OpenVINOEngine, model: Path) -> None:
    tokens = list(engine.generate(PROMPT, GREEDY))
    whole = ids_of(tokens)
    at = next(index for index, token in enumerate(whole) if index > 3 and token not in whole[:index])
    with_end = start(model, eos_ids={EOS_ID, whole[at]})
    try:
        stream = with_end.generate(PROMPT, GREEDY)
        assert ids_of(stream) == whole[:at]
        assert stream.finish_reason == "stop"
        assert stream.end is not None
        assert stream.end.id == whole[at]
        # The first text may have read a kept prefix, which the fast profile rounds.
        assert stream.end.logprob == pytest.approx(tokens[at].logprob, abs=0.5)
    finally:
        with_end.close()


def test_a_text_ends_where_the_context_does(engine: OpenVINOEngine) -> None:
    stream = engine.generate(PROMPT * 25, Sampling(max_new_tokens=500, temperature=0.0))
    assert len(ids_of(stream)) == engine.context_tokens - 1000
    assert stream.finish_reason == "length"


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(engine: OpenVINOEngine) -> None:
    with pytest.raises(PromptTooLong) as raised:
        engine.generate([7] * engine.context_tokens, GREEDY)
    assert (raised.value.tokens, raised.value.limit) == (engine.context_tokens, engine.context_tokens - 1)


@pytest.mark.parametrize("ids", [(), (-1,), (10_000_000,)], ids=["none", "negative", "beyond the vocabulary"])
def test_ids_that_are_not_the_models_are_refused(engine: OpenVINOEngine, ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ids"):
        engine.generate(ids, GREEDY)


def test_a_cancelled_request_makes_no_more_tokens_and_others_go_on(engine: OpenVINOEngine) -> None:
    alone = ids_of(engine.generate(PROMPT, SEEDED))
    cancelled = engine.generate(tuple(range(2000, 2040)), LONG)
    first_token(cancelled)
    other = engine.generate(PROMPT, SEEDED)
    first_token(other)
    cancelled.cancel()
    cancelled.cancel()
    ids_of(cancelled)
    made = cancelled.steps
    assert cancelled.finish_reason == "cancelled"
    assert made < LONG.max_new_tokens
    assert len(ids_of(other)) == len(alone) - 1
    assert cancelled.steps == made
    assert engine.stats().active_requests == 0


def test_a_cancelled_request_leaves_the_very_next_step(engine: OpenVINOEngine) -> None:
    stream = engine.generate(PROMPT, LONG)
    first_token(stream)
    stream.cancel()
    ids_of(stream)
    before = engine.stats()
    ids_of(engine.generate(PROMPT, Sampling(max_new_tokens=8, temperature=0.0)))
    after = engine.stats()
    assert after.tokens - before.tokens == 8
    assert after.steps - before.steps <= 10


def test_one_request_that_openvino_refuses_fails_alone(engine: OpenVINOEngine) -> None:
    broken = Sampling()
    object.__setattr__(broken, "top_p", -1.0)
    good, bad = engine.generate(PROMPT, GREEDY), engine.generate(PROMPT, broken)
    with pytest.raises(Unsupported, match="top_p"):
        ids_of(bad)
    assert len(ids_of(good)) == GREEDY.max_new_tokens
    assert engine.healthy


def test_more_conversations_than_the_cache_holds_all_end(model: Path) -> None:
    engine = start(model, eos_ids=(), context_tokens=128, cache_bytes=4_000_000)
    try:
        sampling = Sampling(max_new_tokens=50, temperature=0.0)
        streams = [engine.generate(tuple(range(first, first + 70)), sampling) for first in range(100, 500, 80)]
        assert [len(ids_of(stream)) for stream in streams] == [50] * 5
        assert 0.0 < engine.stats().cache_used <= 1.0
    finally:
        engine.close()


def test_it_gives_no_scores_and_no_features(engine: OpenVINOEngine) -> None:
    with pytest.raises(Unsupported):
        engine.score(PROMPT, 5)
    with pytest.raises(Unsupported):
        engine.embed([PROMPT])


def test_a_killed_process_reaches_every_request_and_a_new_engine_works(model: Path) -> None:
    engine = start(model)
    streams = [engine.generate(PROMPT, LONG) for _ in range(3)]
    for stream in streams:
        first_token(stream)
    os.kill(engine.pid, signal.SIGKILL)
    for stream in streams:
        with pytest.raises(EngineCrashed):
            ids_of(stream)
    assert not engine.healthy
    with pytest.raises(EngineCrashed):
        engine.generate(PROMPT, GREEDY)
    engine.close()
    fresh = start(model)
    try:
        assert fresh.healthy
        assert ids_of(fresh.generate(PROMPT, GREEDY))
    finally:
        fresh.close()


def test_closing_ends_the_requests_and_the_process_with_all_its_memory(model: Path) -> None:
    engine = start(model)
    process = psutil.Process(engine.pid)
    stream = engine.generate(PROMPT, LONG)
    first_token(stream)
    assert process.memory_info().rss < engine.resident_bytes
    engine.close()
    engine.close()
    with pytest.raises(Closing):
        ids_of(stream)
    with pytest.raises(Closing):
        engine.generate(PROMPT, GREEDY)
    assert not process.is_running()


def test_ctrl_c_in_the_terminal_is_the_parents_to_decide(engine: OpenVINOEngine) -> None:
    os.kill(engine.pid, signal.SIGINT)
    assert len(ids_of(engine.generate(PROMPT, GREEDY))) == GREEDY.max_new_tokens
    assert os.getsid(engine.pid) != os.getsid(0)


def test_the_process_imports_no_page_and_no_torch(engine: OpenVINOEngine) -> None:
    mapped = Path(f"/proc/{engine.pid}/maps").read_text()
    assert "openvino" in mapped
    assert "torch" not in mapped
    assert psutil.Process(engine.pid).memory_info().rss < 900_000_000


_PARENT = """
import sys
from pathlib import Path
from tests.engines.openvino_model import GREEDY, PROMPT, start
engine = start(Path(sys.argv[1]))
print(engine.pid, flush=True)
next(iter(engine.generate(PROMPT, GREEDY)))
sys.stdin.read()
"""


def test_the_process_ends_when_its_parent_is_killed(model: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running()


@pytest.mark.parametrize("keep", [0, 20, 100_000, 100_000_000], ids=lambda keep: f"{keep} bytes")
def test_a_truncated_file_is_named_and_leaves_no_process(model: Path, tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.gguf"
    with model.open("rb") as source:
        cut.write_bytes(source.read(keep))
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(BadCheckpoint) as raised:
        start(cut)
    assert raised.value.path == str(cut)
    assert {child.pid for child in psutil.Process().children()} == before


def test_a_cache_too_small_for_one_context_is_refused_with_the_numbers(model: Path) -> None:
    with pytest.raises(DoesNotFit) as raised:
        start(model, cache_bytes=1_000_000)
    assert raised.value.free_bytes == 1_000_000 < raised.value.needed_bytes


def test_a_cache_larger_than_the_machine_is_a_memory_error_and_leaves_no_process(model: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(MemoryError):
        start(model, cache_bytes=10**14)
    assert {child.pid for child in psutil.Process().children()} == before


def test_it_starts_as_many_threads_as_a_container_has_time_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown by a number that OpenVINO refuses."""
    monkeypatch.setattr(openvino_worker, "core_limit", lambda: -5)
    with pytest.raises(RuntimeError, match=r"INFERENCE_NUM_THREADS.*-5"):
        openvino_worker.open_pipeline(Load(str(model), 4, (), False))


def test_its_makers_are_told_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would keep a name for this machine in the home, and send it with a word of each start."""
    monkeypatch.setenv("HOME", str(tmp_path))
    start(model).close()
    assert not list(tmp_path.iterdir())

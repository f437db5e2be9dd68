"""Loading, unloading and pinning as the owner does it, on a real runtime with a small model."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_demo import hub
from llama_demo.checkpoints import gguf
from llama_demo.errors import DiskFull, InvalidParameter, UnknownModel
from llama_demo.hub_errors import AccessNeeded, AccessPending
from llama_demo.jobs import Jobs
from llama_demo.loading import LoadedModel, Loader
from llama_demo.model_cache import Report
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState, Sampling
from tests.checkpoints.killed import writer
from tests.waiting import PATIENCE_SECONDS


class Gate:
    """Holds every load at its first step until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        load = Loader.load

        def held(loader: Loader, name: str, report: Report, device: str) -> LoadedModel:
            self.reached.set()
            assert self.opened.wait(PATIENCE_SECONDS)
            return load(loader, name, report, device)

        monkeypatch.setattr(Loader, "load", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


@pytest.fixture
def runtime(tmp_path: Path, tiny_folder: Path) -> Iterator[Runtime]:
    file = tmp_path / "mine.gguf"
    gguf.write_gguf(tiny_folder, file, to="q8_0")
    with Runtime(Settings(cache_dir=tmp_path / "cache", model=str(file), context_tokens=256, memory_gb=4.0)) as made:
        yield made


def state(runtime: Runtime, name: str = "mine") -> ModelState:
    return next(model.state for model in runtime.models(everything=True) if model.name == name)


def test_two_people_load_and_unload_the_same_model_and_nobody_is_hurt(runtime: Runtime) -> None:
    def many(do: str) -> None:
        for _ in range(20):
            getattr(runtime.management, do)("mine")

    people = [threading.Thread(target=many, args=(do,)) for do in ("load", "unload", "load", "unload")]
    for person in people:
        person.start()
    for person in people:
        person.join(PATIENCE_SECONDS)
    with runtime.registry.lease("mine") as loaded:
        assert loaded.healthy
    assert state(runtime) is not ModelState.FAILED


def test_a_second_load_joins_the_first(runtime: Runtime, gate: Gate) -> None:
    runtime.management.load("mine")
    assert gate.reached.wait(PATIENCE_SECONDS)
    runtime.management.load("mine")
    assert state(runtime) is ModelState.LOADING
    gate.opened.set()
    with runtime.registry.lease("mine") as loaded:
        assert loaded.healthy


def test_unloading_what_is_loading_ends_it_unless_a_visitor_waits(runtime: Runtime, gate: Gate) -> None:
    runtime.management.load("mine")
    assert gate.reached.wait(PATIENCE_SECONDS)
    visitor = runtime.registry.request("mine")
    runtime.management.unload("mine")
    gate.opened.set()
    lease = visitor.wait(PATIENCE_SECONDS)
    assert lease is not None
    assert lease.value.healthy
    lease.release()


def test_the_bar_shows_who_holds_the_memory_and_the_owner_unloads_it_with_its_analysis_graph(runtime: Runtime) -> None:
    with runtime.registry.lease("mine"), runtime.registry.lease("mine/analysis"):
        memory = runtime.memory()[0]
        assert [(holder.name, holder.is_analysis, holder.leases) for holder in memory.holders] == [
            ("mine", False, 1),
            ("mine/analysis", True, 1),
        ]
        assert memory.used_bytes == sum(holder.bytes for holder in memory.holders)
        runtime.management.pin("mine", pinned=True)
        assert runtime.memory()[0].holders[0].pinned
        runtime.management.unload("mine")
        assert {holder.state for holder in runtime.memory()[0].holders} == {ModelState.DRAINING}
    assert not runtime.models()[0].pinned


def test_what_the_owner_loads_visitors_may_choose_from_then_on(runtime: Runtime, gate: Gate) -> None:
    name = "tinyllama-1.1b-chat"
    with pytest.raises(UnknownModel):
        runtime.registry.request(name)
    runtime.management.load(name)
    assert name in {model.name for model in runtime.models()}
    runtime.management.unload(name)


def test_each_model_stands_where_it_belongs_with_numbers_that_add_up(tmp_path: Path, tiny_folder: Path) -> None:
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=14.0)) as runtime:
        found = {model.name: model for model in runtime.models(everything=True)}
    assert found["tiny-llama"].where == "here"
    assert found["tinyllama-1.1b-chat"].where == "download"
    assert found["llama-2-7b-chat-hf"].where == "access"
    large = found["llama-2-70b-chat-hf"]
    assert large.where == "too_large"
    assert large.needs is not None
    assert large.needs.bytes == large.bytes > large.needs.has_bytes == 14_000_000_000
    assert {each.kind for each in large.needs.helps} >= {"gpu", "gpu_4_bits", "remote"}
    fits = found["tiny-llama"].needs
    assert fits is not None
    assert fits.bytes == found["tiny-llama"].bytes <= fits.has_bytes
    assert fits.conversations == 8


def wait_for_job(runtime: Runtime, name: str) -> None:
    """Until nothing is under way for `name`."""
    for thread in threading.enumerate():
        if thread.name.endswith(f" {name}"):
            thread.join(PATIENCE_SECONDS)


def test_a_folder_is_converted_once_into_a_model_of_its_own_that_a_restart_knows(
    tmp_path: Path, tiny_folder: Path
) -> None:
    settings = Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=4.0, context_tokens=256)
    with Runtime(settings) as runtime:
        runtime.management.convert("tiny-llama")
        wait_for_job(runtime, "tiny-llama")
        assert runtime.management.jobs.progress("tiny-llama") is None
        made = next(model for model in runtime.models(everything=True) if model.name == "tiny-llama-q8_0")
        assert (made.format, made.where) == ("gguf", "here")
        runtime.management.load("tiny-llama-q8_0")
        with runtime.registry.lease("tiny-llama-q8_0") as loaded:
            assert type(loaded.engine).__name__ == "OpenVINOEngine"
    with Runtime(settings) as again:
        assert state(again, "tiny-llama-q8_0") is ModelState.ABSENT


def test_a_cancelled_conversion_leaves_no_model(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()
    report = Jobs._report

    def held(jobs: Jobs, job: Any, done: int, total: int) -> None:
        reached.set()
        assert go.wait(PATIENCE_SECONDS)
        report(jobs, job, done, total)

    monkeypatch.setattr(Jobs, "_report", held)
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=4.0)) as runtime:
        runtime.management.convert("tiny-llama")
        assert reached.wait(PATIENCE_SECONDS)
        runtime.management.cancel("tiny-llama")
        go.set()
        wait_for_job(runtime, "tiny-llama")
        assert runtime.management.jobs.progress("tiny-llama") is None
        assert "tiny-llama-q8_0" not in {model.name for model in runtime.models(everything=True)}
    assert not list((tmp_path / "converted").iterdir())


@pytest.fixture
def converted(tmp_path: Path, tiny_folder: Path) -> Iterator[Runtime]:
    """A runtime in which `tiny-llama` was converted once."""
    settings = Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=4.0, context_tokens=256)
    with Runtime(settings) as made:
        made.management.convert("tiny-llama")
        wait_for_job(made, "tiny-llama")
        yield made


def test_a_conversion_that_is_cancelled_leaves_what_an_earlier_one_made(
    tmp_path: Path, converted: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (tmp_path / "converted").iterdir()
    before = file.read_bytes()
    report = Jobs._report

    def cancelled(jobs: Jobs, job: Any, done: int, total: int) -> None:
        if done > total / 2:
            jobs.cancel("tiny-llama")
        report(jobs, job, done, total)

    monkeypatch.setattr(Jobs, "_report", cancelled)
    converted.management.convert("tiny-llama")
    wait_for_job(converted, "tiny-llama")
    assert list((tmp_path / "converted").iterdir()) == [file]
    assert file.read_bytes() == before
    converted.management.load("tiny-llama-q8_0")
    with converted.registry.lease("tiny-llama-q8_0") as loaded:
        assert loaded.healthy


def test_a_conversion_that_has_no_room_leaves_what_an_earlier_one_made_and_names_that(
    tmp_path: Path, converted: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (tmp_path / "converted").iterdir()
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    converted.management.convert("tiny-llama")
    wait_for_job(converted, "tiny-llama")
    job = converted.management.jobs.progress("tiny-llama")
    assert job is not None
    assert isinstance(job.error, DiskFull)
    assert (job.error.path, job.error.free_bytes) == (str(file), 5)
    assert list((tmp_path / "converted").iterdir()) == [file]


def test_a_conversion_takes_the_place_of_an_earlier_one_that_is_in_use(tmp_path: Path, converted: Runtime) -> None:
    (file,) = (tmp_path / "converted").iterdir()
    (file.parent / f".{file.name}.new.partial").write_bytes(b"left by a killed process")
    greedy = Sampling(max_new_tokens=8, temperature=0.0)
    converted.management.load("tiny-llama-q8_0")
    with converted.registry.lease("tiny-llama-q8_0") as loaded:
        before = [token.id for token in loaded.engine.generate([1, 40, 77], greedy)]
        was = file.stat()
        converted.management.convert("tiny-llama")
        wait_for_job(converted, "tiny-llama")
        assert converted.management.jobs.progress("tiny-llama") is None
        assert file.stat().st_ino != was.st_ino
        assert [token.id for token in loaded.engine.generate([1, 40, 77], greedy)] == before
    assert list((tmp_path / "converted").iterdir()) == [file]


_CONVERTING = """
import sys
from pathlib import Path
from llama_demo.jobs import Jobs
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings

def held(jobs, job, done, total):
    if done > total / 2:
        print("writing", flush=True)
        sys.stdin.read()

Jobs._report = held
with Runtime(Settings(cache_dir=Path(sys.argv[1]), model=sys.argv[2], memory_gb=4.0)) as runtime:
    runtime.management.convert("tiny-llama")
    sys.stdin.read()
"""


def test_a_killed_conversion_leaves_no_model_is_cleaned_up_at_the_next_start_and_runs_again(
    tmp_path: Path, tiny_folder: Path
) -> None:
    folder = tmp_path / "converted"
    with writer(_CONVERTING, tmp_path, tiny_folder) as process:
        (half,) = folder.iterdir()
        assert half.stat().st_size > 0
        process.kill()
    assert list(folder.iterdir()) == [half]
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=4.0, context_tokens=256)) as runtime:
        assert not list(folder.iterdir())
        assert "tiny-llama-q8_0" not in {model.name for model in runtime.models(everything=True)}
        runtime.management.convert("tiny-llama")
        wait_for_job(runtime, "tiny-llama")
        assert "tiny-llama-q8_0" in {model.name for model in runtime.models(everything=True)}
    assert [file.name for file in folder.iterdir()] == ["tiny-llama-q8_0.gguf"]


def test_a_gguf_file_is_not_converted_again(runtime: Runtime) -> None:
    with pytest.raises(InvalidParameter):
        runtime.management.convert("mine")


def test_access_is_asked_for_anew_on_demand(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "llama-2-7b-chat-gguf"
    answers: list[AccessNeeded | None] = [AccessPending("meta-llama/x", "https://huggingface.co/x"), None]

    def check(repo: str) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(hub, "check_access", check)
    runtime.management.check_access(name)
    assert isinstance(runtime.management.refusal(name), AccessPending)
    assert not runtime.management.is_granted(name)
    runtime.management.check_access(name)
    assert runtime.management.refusal(name) is None
    assert runtime.management.is_granted(name)

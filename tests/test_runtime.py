from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints import gguf
from llama_demo.errors import BadCheckpoint, InvalidSetting, LoadFailed, UnknownModel
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState


@pytest.fixture
def model(tmp_path: Path, tiny_folder: Path) -> Path:
    file = tmp_path / "mine.gguf"
    gguf.write_gguf(tiny_folder, file, to="q8_0")
    return file


@pytest.fixture
def runtime(tmp_path: Path, model: Path) -> Iterator[Runtime]:
    settings = Settings(cache_dir=tmp_path / "cache", model=str(model), context_tokens=256, memory_gb=4.0)
    with Runtime(settings) as made:
        yield made


def test_preparing_a_model_loads_it_and_counts_it_against_the_budget(runtime: Runtime) -> None:
    assert runtime.models()[0].state is ModelState.ABSENT
    assert runtime.memory()[0].used_bytes == 0
    runtime.prepare("mine")
    with runtime.registry.lease("mine"):
        mine, embedded = runtime.models()
    assert (mine.name, mine.state) == ("mine", ModelState.READY)
    assert embedded.state is ModelState.ABSENT
    assert runtime.memory()[0].used_bytes == mine.bytes
    assert runtime.memory()[0].budget_bytes == 4_000_000_000


def test_a_model_that_cannot_be_loaded_is_why_a_request_would_be_refused(runtime: Runtime, model: Path) -> None:
    assert runtime.refusal() is None
    assert runtime.models()[0].fits
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(LoadFailed) as caught, runtime.registry.lease("mine"):
        pass
    assert isinstance(caught.value.cause, BadCheckpoint)
    refusal = runtime.refusal()
    assert refusal is not None
    assert "cannot be used" in runtime.messages().error(refusal)


def test_a_model_that_does_not_fit_is_listed_with_what_it_would_take(tmp_path: Path, model: Path) -> None:
    with Runtime(Settings(cache_dir=tmp_path, model=str(model), memory_gb=0.2)) as runtime:
        assert not any(summary.fits for summary in runtime.models())
        assert all(summary.bytes > 200_000_000 for summary in runtime.models())


def test_an_unknown_model_prepared_disturbs_nothing(runtime: Runtime) -> None:
    runtime.prepare("llama-9")
    runtime.prepare("mine")
    with runtime.registry.lease("mine") as loaded:
        assert loaded.healthy


def test_a_gpu_that_is_not_there_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidSetting) as caught:
        Runtime(Settings(cache_dir=tmp_path, device="cuda:0"))
    assert caught.value.expected == "one of cpu on this machine"


def test_visitors_get_only_what_the_owner_allows_while_the_owner_sees_everything(runtime: Runtime) -> None:
    assert [summary.name for summary in runtime.models()] == ["mine", EMBEDDED.name]
    owners = [summary.name for summary in runtime.models(everything=True)]
    assert {"mine", EMBEDDED.name, "llama-2-70b"} <= set(owners)
    for name in ("llama-2-7b", "llama-2-7b/analysis"):
        with pytest.raises(UnknownModel):
            runtime.registry.request(name)

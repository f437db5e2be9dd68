from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints import gguf
from llama_demo.engines import transformers_lent
from llama_demo.engines.transformers_lent import LentEngine
from llama_demo.errors import BadCheckpoint, InvalidSetting, LoadFailed, UnknownModel
from llama_demo.loading import Loader
from llama_demo.model_errors import DeviceLost
from llama_demo.reasons import Reason
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState, Sampling


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


def test_on_a_gpu_that_is_lent_a_model_is_placed_by_the_main_thread_and_no_call_is_made_before_a_visitors(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed, borrowed = list[threading.Thread](), list[str]()

    def lend(task: Any, duration: Any) -> Any:
        def borrow(*asked: Any) -> Any:
            borrowed.append(task.__name__)
            return task(*asked)

        return borrow

    def place(engine: LentEngine, lender: Any) -> None:
        engine._device = "cpu"
        placed.append(threading.current_thread())
        put(engine, lender)

    put = LentEngine.place
    monkeypatch.setattr(transformers_lent, "lender", lambda: lend)
    monkeypatch.setattr(LentEngine, "place", place)
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), zero_gpu=True, context_tokens=256)) as runtime:
        runtime.place(runtime.default_model)
        assert placed == [threading.main_thread()]
        assert not borrowed
        assert runtime.models()[0].device == "cuda:0"
        with runtime.registry.lease(runtime.default_model) as model:
            assert len(list(model.engine.generate([5, 6, 7], Sampling(max_new_tokens=3, temperature=0.0)))) == 3
        assert len(borrowed) == 1


ADAPTER = """
[[model]]
name = "small-adapter"
adapter = "somebody/Adapter"
base = "tinyllama-1.1b-chat"
good_for = "Nothing on a GPU that is lent."
parameters = 1_000
"""


@pytest.mark.parametrize("added", ["", ADAPTER])
def test_a_space_with_a_lent_gpu_starts_with_an_open_model_that_can_use_it(tmp_path: Path, added: str) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(added)
    with Runtime(Settings(cache_dir=tmp_path, zero_gpu=True, catalog=str(catalog) if added else "")) as runtime:
        entry = runtime.catalog.find(runtime.default_model)
        assert (entry.format, entry.access, entry.base) == ("hf", "open", "")
        runtime.place(entry.name)  # nothing is here, and the Hub is not asked in tests
        refusal = runtime.refusal()
        assert refusal is not None
        assert entry.repo in runtime.messages().error(refusal)


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
    assert caught.value.expected == Reason("expected.device_here", choices=("auto", "cpu"))


def test_a_gpu_that_has_gone_since_the_start_is_named_with_what_to_do(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none: so torch fails as it does where the driver has lost it."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-0, 81920, 81559\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings = Settings(cache_dir=tmp_path / "cache", model=str(tiny_folder), context_tokens=256)
    with Runtime(settings) as runtime:
        assert runtime.models()[0].device == "cuda:0"
        program.unlink()
        with pytest.raises(LoadFailed) as caught, runtime.registry.lease(runtime.default_model):
            pass
        assert isinstance(caught.value.cause, DeviceLost)
        for language, words in (("en", "start the app again"), ("ko", "다시 시작해")):
            said = runtime.messages(language).error(caught.value)
            assert "cuda:0" in said
            assert words in said


def test_visitors_get_only_what_the_owner_allows_while_the_owner_sees_everything(runtime: Runtime) -> None:
    assert [summary.name for summary in runtime.models()] == ["mine", EMBEDDED.name]
    owners = [summary.name for summary in runtime.models(everything=True)]
    assert {"mine", EMBEDDED.name, "llama-2-70b"} <= set(owners)
    for name in ("llama-2-7b", "llama-2-7b/analysis"):
        with pytest.raises(UnknownModel):
            runtime.registry.request(name)


class Pretend:
    """What a load gives on a machine that is not there."""

    healthy = True

    def close(self) -> None:
        """Nothing was taken."""


@pytest.fixture
def eight_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A machine that says it has eight GPUs of 80 GB, and loads nothing."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nfor gpu in 0 1 2 3 4 5 6 7; do echo GPU-$gpu, 81920, 81559; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Loader, "load", lambda *_: Pretend())
    names = [f"small-{number}" for number in range(40)]
    shape = "parameters = 6_738_415_616\nlayers = 32\nkv_heads = 32\nhead_size = 128\n"
    entries = [
        f'[[model]]\nname = "{name}"\nrepo = "a/{name}"\nformat = "hf"\ngood_for = "x"\n{shape}' for name in names
    ]
    catalog = tmp_path / "models.toml"
    catalog.write_text(f"visitors = {[*names, 'llama-2-70b-chat-hf']}\n" + "".join(entries))
    with Runtime(Settings(cache_dir=tmp_path / "cache", memory_gb=4.0, catalog=str(catalog))) as made:
        yield made


def test_many_small_models_fill_one_gpu_after_the_other_and_the_most_recently_used_stay(eight_gpus: Runtime) -> None:
    registry = eight_gpus.registry
    for number in range(40):
        with registry.lease(f"small-{number}"):
            pass
    used = [memory.used_bytes for memory in eight_gpus.memory() if memory.device != "CPU"]
    one = eight_gpus.registry.status("small-39").bytes
    assert [round(each / one) for each in used] == [2] * 8
    there = [number for number in range(40) if registry.status(f"small-{number}").state is ModelState.READY]
    assert there == list(range(24, 40))
    with registry.lease("small-24"), registry.lease("small-0"):
        assert registry.status("small-24").state is ModelState.READY
        assert registry.status("small-25").state is ModelState.ABSENT


def test_a_model_over_two_gpus_is_counted_on_both_and_makes_room_on_both(eight_gpus: Runtime) -> None:
    registry = eight_gpus.registry
    for number in range(16):
        with registry.lease(f"small-{number}"):
            pass
    with registry.lease("llama-2-70b-chat-hf"):
        status = registry.status("llama-2-70b-chat-hf")
        assert status.device == "cuda:0, cuda:1"
        assert registry.used_bytes("cuda:0") + registry.used_bytes("cuda:1") == status.bytes > 138e9
        for number in range(4):
            assert registry.status(f"small-{number}").state is ModelState.ABSENT
        assert registry.status("small-4").state is ModelState.READY


@pytest.mark.parametrize("dtype", ["8-bit", "4-bit"])
def test_eight_and_four_bits_without_a_gpu_are_refused_at_the_start(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidSetting) as caught:
        Runtime(Settings(cache_dir=tmp_path, dtype=dtype))
    assert caught.value.name == "--dtype"

"""What only a GPU can show: placement, half precision and four bits, batching, eviction, running out of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llama_demo.catalog import read_catalog
from llama_demo.devices import CPU
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.errors import DoesNotFit
from llama_demo.loading import LoadedModel, Loader
from llama_demo.placement import GPU_BYTES
from llama_demo.registry import Plan, Registry
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import LoadProgress, ModelState, Sampling
from tests import tiny
from tests.engines import contract
from tests.engines.contract import CHECKS, Engines, ids_of, load_folder
from tests.gpu.conftest import Machine, Start
from tests.test_adapters import by_peft, write_adapter

IDS = (1, 40, 77, 120, 55, 301, 12, 90, 260, 33)
GREEDY = Sampling(12, temperature=0.0)
Check = Callable[[Engines], None]


def engines(start: Start, folder: Path, layers: dict[str, int]) -> Engines:
    engine = start(reproducible=True, layers=layers, context_tokens=tiny.CONTEXT_TOKENS)
    return Engines(engine, engine, lambda: load_folder(folder), IDS, True, 1e-3, 12)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_engine_keeps_the_contract_on_one_device(
    check: Check, start: Start, machine: Machine, tiny_folder: Path
) -> None:
    check(engines(start, tiny_folder, {machine.first: 3}))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_model_over_two_devices_keeps_the_contract(
    check: Check, start: Start, machine: Machine, tiny_folder: Path
) -> None:
    made = engines(start, tiny_folder, {machine.first: 2, machine.second(): 1})
    check(made)
    assert isinstance(made.generator, TransformersEngine)
    if not machine.pretend:
        assert {str(tensor.device) for tensor in made.generator._model.parameters()} == set(machine.devices[:2])


def test_closing_on_two_devices_ends_what_is_in_flight(start: Start, machine: Machine, tiny_folder: Path) -> None:
    contract.check_close_ends_what_is_in_flight(engines(start, tiny_folder, {machine.first: 1, machine.second(): 2}))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "8-bit", "4-bit"])
def test_fewer_bits_take_what_the_plan_says_and_stay_near_the_exact_scores(
    dtype: str, start: Start, machine: Machine, tiny_folder: Path
) -> None:
    """A tiny random model bears four bits worse than a trained one: the bounds tell a broken type from a coarse one."""
    if dtype.endswith("-bit"):
        machine.needs_quantization()
    exact, coarse = start(reproducible=True), start(dtype=dtype)
    bounds = {"float16": 0.02, "bfloat16": 0.15, "8-bit": 0.3, "4-bit": 1.5}
    difference = np.abs(coarse.score(IDS, 0).logprobs[1:] - exact.score(IDS, 0).logprobs[1:]).mean()
    assert 0 < difference <= bounds[dtype]
    assert len(ids_of(coarse.generate(IDS, GREEDY))) == 12
    precision = dtype if dtype.endswith("-bit") else "16-bit"
    weights = coarse.resident_bytes - coarse._batch.cache_bytes
    parameters = sum(tensor.numel() for tensor in exact._model.parameters())
    ends = 2 * exact._model.get_input_embeddings().weight.numel()
    assert weights == pytest.approx((parameters - ends) * GPU_BYTES[precision] + ends * 2, rel=0.1)


def test_many_requests_are_under_way_together_and_each_is_the_text_it_is_alone(start: Start) -> None:
    engine = start(reproducible=True)
    prompts = [(*IDS[place % 8 :], 5 + place) for place in range(16)]
    alone = [ids_of(engine.generate(prompt, Sampling(40, temperature=0.0))) for prompt in prompts]
    streams = [engine.generate(prompt, Sampling(40, temperature=0.0)) for prompt in prompts]
    next(iter(streams[-1]))
    assert any(not stream.ended for stream in streams[:-1]), "the last one began after all others had ended"
    rest = [ids_of(stream) for stream in streams[:-1]]
    assert sum(made == wanted for made, wanted in zip(rest, alone, strict=False)) >= 14


def test_a_folder_goes_where_the_settings_say_and_takes_what_the_plan_says(
    machine: Machine, tiny_folder: Path, tmp_path: Path
) -> None:
    settings = Settings(cache_dir=tmp_path, model=str(tiny_folder), device=machine.setting, context_tokens=256)
    before = machine.used_bytes()
    with Runtime(settings) as runtime, runtime.registry.lease(runtime.default_model) as loaded:
        status = runtime.registry.status(runtime.default_model)
        assert status.device == machine.planned
        assert isinstance(loaded.engine, TransformersEngine)
        assert str(loaded.engine._model.device) == machine.first
        taken = machine.used_bytes() - before
        assert taken <= status.bytes
        if not machine.pretend:
            assert loaded.engine.resident_bytes <= taken * 1.1


def test_auto_takes_a_gpu_where_there_is_one(machine: Machine, tiny_folder: Path, tmp_path: Path) -> None:
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), context_tokens=256)) as runtime:
        (summary, *_) = runtime.models()
        assert summary.device.startswith(machine.planned.rstrip("0123456789"))


def registry_for(machine: Machine, tmp_path: Path, catalog: Path, share: float) -> Registry[LoadedModel]:
    """Room on the first device for `share` models of the tiny kind."""
    entries, _ = read_catalog("", catalog)
    settings = Settings(cache_dir=tmp_path, device=machine.setting, context_tokens=256)
    plans = Loader(settings, entries, {CPU: 10**12, machine.planned: 10**12})
    loader = Loader(settings, entries, {CPU: 10**12, machine.planned: int(plans.plan("a").bytes * share)})

    def plan(name: str) -> Plan:
        made = loader.plan(name)
        return Plan(made.device, made.bytes)

    def load(name: str, made: Plan, report: Callable[[LoadProgress], None]) -> LoadedModel:
        return loader.load(name, report, made.device)

    budgets = {machine.planned: int(plans.plan("a").bytes * share)}
    return Registry(budgets=budgets, plan=plan, load=load, idle_seconds=None, wait_seconds=30.0)


@pytest.fixture
def catalog(tiny_folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "models.toml"
    entries = [f'[[model]]\nname = "{name}"\npath = "{tiny_folder}"\nformat = "hf"\ngood_for = "x"\n' for name in "abc"]
    file.write_text("\n".join(entries))
    return file


def test_three_models_in_room_for_two_evict_the_least_recently_used_and_its_memory_comes_back(
    machine: Machine, tmp_path: Path, catalog: Path
) -> None:
    registry = registry_for(machine, tmp_path, catalog, 2.2)
    used = [machine.used_bytes()]
    try:
        for name in "abc":
            with registry.lease(name) as model:
                assert ids_of(model.engine.generate(IDS, GREEDY))
                used.append(machine.used_bytes())
        assert registry.status("a").state is ModelState.ABSENT
        assert {registry.status(name).state for name in "bc"} == {ModelState.READY}
        one = used[1] - used[0]
        assert used[3] - used[0] <= 2.2 * one
    finally:
        registry.close()
    assert machine.used_bytes() <= used[0] + 20 * 2**20


def test_more_than_there_is_is_refused_and_the_next_load_works(start: Start, machine: Machine) -> None:
    with pytest.raises(MemoryError):
        start(cache_bytes=100 * machine.free_bytes())
    assert len(ids_of(start().generate(IDS, GREEDY))) == 12


def test_memory_that_others_took_is_said_and_the_model_loads_once_it_is_back(
    machine: Machine, tmp_path: Path, catalog: Path
) -> None:
    if machine.pretend:
        pytest.skip("on a CPU the memory that others take is the whole machine's")
    registry = registry_for(machine, tmp_path, catalog, 1.2)
    ballast = torch.empty(machine.free_bytes() - 50 * 2**20, dtype=torch.uint8, device=machine.first)
    try:
        with pytest.raises(DoesNotFit), registry.lease("a"):
            pass
        del ballast
        torch.cuda.empty_cache()
        with registry.lease("a") as model:
            assert ids_of(model.engine.generate(IDS, GREEDY))
    finally:
        registry.close()


def test_adapters_share_their_bases_memory_and_write_as_peft_does(
    start: Start, machine: Machine, tiny_folder: Path, tmp_path: Path
) -> None:
    before = machine.used_bytes()
    base = start(reproducible=True)
    whole = machine.used_bytes() - before
    for seed in range(2):
        folder = write_adapter(tmp_path / str(seed), tiny_folder, seed)
        adapter = start(folder, name=str(seed), base=base, cache_bytes=base._batch.cache_bytes)
        prompt = [1, 40, 77, 120, 55, 301]
        assert ids_of(adapter.generate(prompt, GREEDY)) == by_peft(tiny_folder, folder)
        assert ids_of(base.generate(prompt, GREEDY)) == by_peft(tiny_folder, None)
    if not machine.pretend:
        weights = base.resident_bytes - base._batch.cache_bytes
        assert machine.used_bytes() - before - whole < 2 * (whole - weights) + weights

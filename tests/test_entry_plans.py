"""What the catalog's models would do on pretend machines, from a laptop to eight GPUs of 80 GB."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_demo.catalog import Entry, read_catalog
from llama_demo.checkpoints.gguf import write_gguf
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.devices import CPU
from llama_demo.entry_plans import Planner
from llama_demo.errors import DoesNotFit
from llama_demo.placement import GPU_BYTES
from llama_demo.settings import Settings

GB = 10**9


def planner(cpu_gb: float, *gpus_gb: float, quantizes: bool = True, **options: Any) -> Planner:
    gpus = {f"cuda:{number}": int(size * GB) for number, size in enumerate(gpus_gb)}
    return Planner(Settings(**options), {**gpus, CPU: int(cpu_gb * GB)}, quantizes=quantizes)


def entry(name: str) -> Entry:
    return read_catalog("")[0].find(name)


@pytest.mark.parametrize(
    ("name", "machine", "way", "precision", "device"),
    [
        ("llama-2-7b-chat-hf", (12.8,), "openvino", "q4_0", CPU),  # a laptop, or a free Space
        ("llama-2-7b-chat", (20,), "openvino", "q8_0", CPU),
        ("llama-2-7b-chat-gguf", (32, 80), "openvino", "q4_0", CPU),
        ("llama-2-7b-chat-hf", (32, 24), "batching", "16-bit", "cuda:0"),
        ("llama-2-13b-chat-hf", (32, 24), "batching", "8-bit", "cuda:0"),
        ("llama-2-13b-chat", (32, 13), "batching", "4-bit", "cuda:0"),
        ("llama-2-13b-chat-hf", (32, 24, 24), "split", "16-bit", "cuda:0, cuda:1"),
        ("llama-2-7b-chat-hf", (32, 4), "openvino", "q8_0", CPU),
        ("llama-2-70b-chat-hf", (256, *[80] * 8), "split", "16-bit", "cuda:0, cuda:1"),
        ("tinyllama-1.1b-chat", (256, *[80] * 8), "batching", "16-bit", "cuda:0"),
    ],
)
def test_each_machine_runs_each_model_in_its_best_way(
    name: str, machine: tuple[float, ...], way: str, precision: str, device: str
) -> None:
    best = planner(*machine).best(entry(name))
    assert (best.way, best.precision, best.device) == (way, precision, device)


def test_a_named_gpu_is_the_only_place_while_auto_falls_back_to_the_cpu() -> None:
    model = entry("llama-2-13b-hf")
    assert planner(64, 8, device="auto").best(model).device == CPU
    with pytest.raises(DoesNotFit) as caught:
        planner(64, 8, device="cuda:0").best(model)
    assert caught.value.device == "cuda:0"


@pytest.mark.parametrize("machine", [(64,), (64, 80)])
def test_the_cache_is_planned_for_as_many_conversations_as_are_asked_for_or_fit(machine: tuple[float, ...]) -> None:
    model = entry("llama-2-7b-chat-hf")
    one, four, most = (planner(*machine, cached_conversations=count).best(model) for count in (1, 4, 4096))
    assert (one.visitors, four.visitors) == (1, 4)
    spare = one.cache_bytes * 32 / (4096 + 32)
    assert four.cache_bytes - spare == pytest.approx(4 * (one.cache_bytes - spare))
    assert 8 < most.visitors < 4096
    assert most.bytes <= machine[-1] * GB < most.bytes + one.cache_bytes


def test_without_bitsandbytes_nothing_is_planned_in_eight_or_four_bits() -> None:
    model = entry("llama-2-13b-hf")
    assert {way.precision for way in planner(64, 24).ways(model)} == {"8-bit", "4-bit", "q8_0", "q4_0"}
    assert {way.precision for way in planner(64, 24, quantizes=False).ways(model)} == {"q8_0", "q4_0"}


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({"dtype": "float32"}, "32-bit"),
        ({"dtype": "bfloat16"}, "16-bit"),
        ({"dtype": "8-bit"}, "8-bit"),
        ({"dtype": "4-bit"}, "4-bit"),
        ({"dtype": "4-bit", "reproducible": True}, "32-bit"),
    ],
)
def test_the_type_that_is_asked_for_is_the_only_one(options: dict[str, Any], precision: str) -> None:
    best = planner(64, 80, **options).best(entry("llama-2-7b-hf"))
    assert best.precision == precision
    layers = (6_738_415_616 - 262_144_000) * GPU_BYTES[precision]
    assert best.weight_bytes == pytest.approx(layers + 262_144_000 * (4 if precision == "32-bit" else 2), rel=1e-6)


def test_a_small_model_may_go_to_any_gpu_that_holds_as_much_of_it() -> None:
    ways = planner(64, *[80] * 8).as_good(entry("tinyllama-1.1b-chat"))
    assert [way.device for way in ways] == [f"cuda:{number}" for number in range(8)]
    assert {way.visitors for way in ways} == {8}
    uneven = planner(64, 3.6, 24, 24).as_good(entry("tinyllama-1.1b-chat"))
    assert [way.device for way in uneven] == ["cuda:1", "cuda:2"]


def test_a_folder_is_planned_for_the_cpu_in_the_type_it_is_computed_in(tiny_folder: Path) -> None:
    catalog, name = read_catalog(str(tiny_folder))
    stored = planner(4).best(catalog.find(name))
    half = planner(4, dtype="bfloat16").best(catalog.find(name))
    assert (stored.way, stored.precision, half.precision) == ("batching", "32-bit", "16-bit")
    assert stored.weight_bytes == pytest.approx(2 * half.weight_bytes, abs=2)
    assert stored.cache_bytes == 2 * half.cache_bytes
    weights = (tiny_folder / "model.safetensors").stat().st_size
    assert stored.weight_bytes == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize(
    ("stored", "dtype", "is_cast"),
    [("float16", "auto", True), ("bfloat16", "auto", False), ("float32", "bfloat16", True), ("float32", "auto", False)],
)
def test_a_folder_that_is_cast_has_its_file_in_memory_as_well_while_it_loads(
    stored: str, dtype: str, is_cast: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": stored}))
    catalog, name = read_catalog(str(folder))
    (share,) = planner(4, dtype=dtype, context_tokens=256).best(catalog.find(name)).shares
    model = planner(4).model(catalog.find(name))
    assert share.read_bytes == (model.parameters * (4 if stored == "float32" else 2) if is_cast else 0)
    assert share.peak_bytes == max(share.bytes, share.weight_bytes + share.head_room_bytes + share.read_bytes)


def test_a_file_of_sixteen_bits_takes_more_where_the_arithmetic_is_exact(tiny_folder: Path, tmp_path: Path) -> None:
    fast, exact = planner(4), planner(4, reproducible=True)
    types: dict[Quantization, float] = {"f16": 8 / 6, "q8_0": 1}
    for to, more in types.items():
        write_gguf(tiny_folder, tmp_path / f"{to}.gguf", to=to)
        catalog, name = read_catalog(str(tmp_path / f"{to}.gguf"))
        fast_bytes, exact_bytes = (each.best(catalog.find(name)).weight_bytes for each in (fast, exact))
        assert exact_bytes == pytest.approx(fast_bytes * more, rel=0.01)

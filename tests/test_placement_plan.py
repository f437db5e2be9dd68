"""Plans over pretend machines, from a laptop to eight GPUs of 80 GB."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_demo.devices import CPU, Device
from llama_demo.errors import DoesNotFit
from llama_demo.placement import GPU_HEAD_ROOM_BYTES, Form, Model, cpu_form, gpu_form
from llama_demo.placement_plan import Plan, plan, plans

GB = 10**9
MODELS = {
    "7b": Model(6_738_415_616, 2 * 32000 * 4096, 32, 32, 128),
    "13b": Model(13_015_864_320, 2 * 32000 * 5120, 40, 40, 128),
    "70b": Model(68_976_648_192, 2 * 32000 * 8192, 80, 8, 128),
    "smol": Model(134_515_008, 2 * 49152 * 576, 30, 3, 64),
}


def forms(size: str) -> list[Form]:
    model = MODELS[size]
    gpu = [gpu_form(model, precision) for precision in ("16-bit", "8-bit", "4-bit")]
    return [*gpu, *(cpu_form(model, "openvino", kind, 1.25) for kind in ("q8_0", "q4_0"))]


def machine(cpu_gb: float, *gpus_gb: float) -> list[Device]:
    gpus = [Device(f"cuda:{number}", int(size * GB), int(size * GB)) for number, size in enumerate(gpus_gb)]
    return [*gpus, Device(CPU, int(cpu_gb * GB), int(cpu_gb * GB))]


def planned(size: str, devices: list[Device], visitors: int = 1, context_tokens: int = 4096) -> Plan:
    return plan(size, forms(size), devices, context_tokens=context_tokens, visitors=visitors)


@pytest.mark.parametrize(
    ("size", "devices", "way", "precision", "count"),
    [
        ("7b", machine(12.8), "openvino", "q4_0", 1),  # a laptop, or what a free Space has free
        ("7b", machine(20), "openvino", "q8_0", 1),
        ("13b", machine(20), "openvino", "q4_0", 1),
        ("7b", machine(32, 24), "batching", "16-bit", 1),
        ("7b", machine(32, 16), "batching", "8-bit", 1),
        ("7b", machine(32, 8), "batching", "4-bit", 1),
        ("7b", machine(32, 4), "openvino", "q8_0", 1),
        ("13b", machine(32, 24), "batching", "8-bit", 1),
        ("13b", machine(32, 24, 24), "split", "16-bit", 2),
        ("70b", machine(64, 80), "batching", "8-bit", 1),
        ("70b", machine(64, 48), "batching", "4-bit", 1),
        ("70b", machine(64, 80, 80), "split", "16-bit", 2),
        ("70b", machine(64, 24, 24), "split", "4-bit", 2),
        ("70b", machine(256, *[80] * 8), "split", "16-bit", 2),
        ("70b", machine(96), "openvino", "q4_0", 1),
        ("smol", machine(1, 2), "batching", "16-bit", 1),
    ],
)
def test_each_machine_gets_its_best_plan(
    size: str, devices: list[Device], way: str, precision: str, count: int
) -> None:
    best = planned(size, devices)
    assert (best.way, best.precision, len(best.shares)) == (way, precision, count)


def test_the_numbers_are_the_familys_own() -> None:
    (share,) = planned("7b", machine(0, 80), visitors=8).shares
    assert share.weight_bytes == 13_476_831_232
    assert share.cache_bytes == (8 * 4096 + 32) * 512 * 1024
    (share,) = planned("70b", machine(0, 200), visitors=2).shares
    assert share.weight_bytes == 137_953_296_384
    assert share.cache_bytes == (2 * 4096 + 32) * 320 * 1024
    assert share.head_room_bytes == GPU_HEAD_ROOM_BYTES


def test_four_bits_leave_the_embedding_and_the_head_in_sixteen() -> None:
    (share,) = planned("7b", machine(0, 8)).shares
    embedding = 2 * 32000 * 4096
    assert share.weight_bytes == int((6_738_415_616 - embedding) * 0.5625 + embedding * 2)


def test_a_split_keeps_room_for_cache_and_head_room_beside_the_weights() -> None:
    best = planned("70b", machine(64, 80, 80))
    assert best.weight_bytes == pytest.approx(137_953_296_384, rel=1e-6)
    assert sum(share.layers for share in best.shares) == 80
    for share in best.shares:
        assert share.bytes <= 80 * GB
        assert share.cache_bytes > 0
    assert sum(share.cache_bytes for share in best.shares) == pytest.approx(1.25 * 1024**3, rel=1e-6)


def test_a_head_that_has_no_room_beside_the_last_layer_is_no_plan() -> None:
    form = gpu_form(MODELS["7b"], "16-bit")
    layer = form.layer_bytes + form.cache_bytes * 4096
    end = 32000 * 4096 * 2
    first = GPU_HEAD_ROOM_BYTES + end + 31 * layer + 10
    for second, fits in ((end - 1000, False), (end + 1000, True)):
        devices = machine(0, first / GB, (GPU_HEAD_ROOM_BYTES + layer + second) / GB)
        found = plans([form], devices, context_tokens=4096, visitors=1)
        assert any(option.way == "split" and option.precision == "16-bit" for option in found) == fits


def test_small_models_are_packed_on_the_fullest_gpu_that_holds_them() -> None:
    devices = [Device("cuda:0", 80 * GB, 80 * GB), Device("cuda:1", 80 * GB, 20 * GB), Device("cuda:2", 80 * GB, GB)]
    assert planned("7b", devices).shares[0].device == "cuda:1"
    assert planned("7b", devices, visitors=16).shares[0].device == "cuda:0"


def test_fewer_visitors_are_held_where_the_memory_ends() -> None:
    best = planned("7b", machine(0, 24), visitors=16)
    assert (best.way, best.precision, best.visitors) == ("batching", "16-bit", 4)
    assert planned("7b", machine(0, 24), visitors=16, context_tokens=1024).visitors == 16


@pytest.mark.parametrize(("size", "devices"), [("70b", machine(16)), ("70b", machine(64, 8, 8)), ("7b", machine(2))])
def test_what_fits_nowhere_is_said_with_the_numbers_of_the_nearest_way(size: str, devices: list[Device]) -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(size, devices)
    error = caught.value
    assert error.needed_bytes > error.free_bytes
    assert error.device == CPU
    assert error.needed_bytes > MODELS[size].parameters * 18 / 32


@given(
    size=st.sampled_from(sorted(MODELS)),
    cpu=st.floats(0, 300),
    gpus=st.lists(st.floats(0, 90), max_size=8),
    visitors=st.integers(1, 64),
    context=st.sampled_from([512, 2048, 4096]),
)
def test_no_plan_asks_a_device_for_more_than_it_has(
    size: str, cpu: float, gpus: list[float], visitors: int, context: int
) -> None:
    devices = machine(cpu, *gpus)
    free = {device.name: device.free_bytes for device in devices}
    found = list(plans(forms(size), devices, context_tokens=context, visitors=visitors))
    for option in found:
        assert 1 <= option.visitors <= visitors
        for share in option.shares:
            assert share.bytes <= free[share.device] + 1
            assert min(share.weight_bytes, share.cache_bytes) > 0
    if found:
        assert planned(size, devices, visitors, context) == found[0]
    else:
        with pytest.raises(DoesNotFit) as caught:
            planned(size, devices, visitors, context)
        assert caught.value.needed_bytes > caught.value.free_bytes

"""What would help where a model does not fit: numbers for machines that are not there."""

from __future__ import annotations

import pytest

from llama_demo.devices import CPU
from llama_demo.fitting import Help, Needs, gpu_for, helps, least
from llama_demo.placement import FAST_CACHE_BYTES, OPENVINO_BYTES, Model, cpu_form

GB = 10**9
PARAMETERS = 6_738_415_616
LLAMA_7B = Model(PARAMETERS, 2 * 32000 * 4096, layers=32, kv_heads=32, head_size=128)


def needs_of(kind: str, has_gb: float, context_tokens: int = 4096) -> tuple[Needs, dict[str, Help]]:
    form = cpu_form(LLAMA_7B, "openvino", kind, FAST_CACHE_BYTES)
    needs = least(form, CPU, int(has_gb * GB), context_tokens)
    return needs, {each.kind: each for each in helps(needs, form, LLAMA_7B)}


def test_the_least_is_the_weights_one_conversation_and_the_head_room() -> None:
    needs, _ = needs_of("q4_0", 4)
    one_token = 2 * 32 * 32 * 128 * 1.25
    assert needs.cache_bytes == (4096 + 32) * one_token  # a page of 32 is kept free
    assert needs.bytes == needs.weight_bytes + needs.cache_bytes + needs.head_room_bytes


def test_four_bits_help_where_they_fit() -> None:
    assert "quantize" not in needs_of("f16", 9)[1]
    help_ = needs_of("f16", 10)[1]["quantize"]
    assert PARAMETERS * OPENVINO_BYTES["q4_0"] < help_.bytes <= 10 * GB
    assert "quantize" not in needs_of("q4_0", 10)[1]


def test_a_shorter_context_helps_where_the_weights_leave_room_for_one_and_it_then_fits() -> None:
    tokens = needs_of("q4_0", 9)[1]["context"].tokens
    assert tokens < 4096
    assert needs_of("q4_0", 9, tokens)[0].bytes <= 9 * GB < needs_of("q4_0", 9, tokens + 128)[0].bytes
    assert "context" not in needs_of("q4_0", 7.9)[1]


def test_the_gpu_that_is_named_holds_the_model() -> None:
    found = needs_of("q4_0", 4)[1]
    assert (found["gpu_4_bits"].gpu_gb, found["gpu"].gpu_gb) == (12, 24)
    assert found["gpu"].bytes <= found["gpu"].gpu_gb * GB
    assert "remote" in found


@pytest.mark.parametrize(("needed_gb", "expected"), [(7, 8), (7.5, 12), (74, 80), (10_000, None)])
def test_the_smallest_usual_card_is_chosen(needed_gb: float, expected: int | None) -> None:
    assert gpu_for(int(needed_gb * GB)) == expected

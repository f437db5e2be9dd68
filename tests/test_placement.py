from __future__ import annotations

import pytest

from llama_demo.errors import DoesNotFit
from llama_demo.placement import HEAD_ROOM_BYTES, Shape, kv_bytes_per_token, place

LLAMA_7B = Shape(weight_bytes=13_476_831_232, layers=32, kv_heads=32, head_size=128)
LLAMA_70B = Shape(weight_bytes=137_953_296_384, layers=80, kv_heads=8, head_size=128)


def test_the_kv_cache_of_the_family_is_what_its_shapes_say() -> None:
    assert kv_bytes_per_token(LLAMA_7B, 2) == 512 * 1024
    assert kv_bytes_per_token(LLAMA_70B, 2) == 320 * 1024


def plan(budget_bytes: int, contexts: int = 8) -> int:
    placement = place(
        "llama-2-7b",
        LLAMA_7B,
        device="CPU",
        budget_bytes=budget_bytes,
        context_tokens=4096,
        contexts=contexts,
        bytes_each=2,
    )
    assert placement.bytes <= budget_bytes
    return placement.cache_bytes


def test_room_for_all_contexts_is_taken_where_there_is() -> None:
    assert plan(100_000_000_000) == 8 * 2 * 1024**3


def test_a_smaller_budget_gets_a_smaller_cache() -> None:
    assert 2 * 2 * 1024**3 < plan(20_000_000_000) < 8 * 2 * 1024**3


def test_what_does_not_fit_is_said_with_the_numbers() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(16_000_000_000)
    assert caught.value.needed_bytes == LLAMA_7B.weight_bytes + 2 * 2 * 1024**3 + HEAD_ROOM_BYTES
    assert caught.value.free_bytes == 16_000_000_000
    assert caught.value.device == "CPU"

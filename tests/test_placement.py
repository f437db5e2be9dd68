from __future__ import annotations

import pytest

from llama_demo.placement import GPU_BYTES, Model, cpu_form, gpu_form, kv_bytes_per_token

LLAMA_7B = Model(6_738_415_616, 2 * 32000 * 4096, 32, 32, 128)
LLAMA_70B = Model(68_976_648_192, 2 * 32000 * 8192, 80, 8, 128)


def test_the_kv_cache_of_the_family_is_what_its_shapes_say() -> None:
    assert kv_bytes_per_token(LLAMA_7B, 2) == 512 * 1024
    assert kv_bytes_per_token(LLAMA_70B, 2) == 320 * 1024
    assert gpu_form(LLAMA_7B, "16-bit").context_bytes(4096) == 2 * 1024**3


@pytest.mark.parametrize("precision", GPU_BYTES)
def test_a_gpus_form_leaves_the_embedding_and_the_head_in_sixteen_bits(precision: str) -> None:
    ends = LLAMA_7B.embedding_parameters * (4 if precision == "32-bit" else 2)
    layers = (LLAMA_7B.parameters - LLAMA_7B.embedding_parameters) * GPU_BYTES[precision]
    assert gpu_form(LLAMA_7B, precision).weight_bytes == pytest.approx(layers + ends, abs=1)


def test_a_file_that_is_used_as_it_is_takes_what_it_holds() -> None:
    stored = Model(134_515_008, 0, 30, 3, 64, held_bytes=145_000_000)
    assert cpu_form(stored, "batching", "16-bit", 2.0).weight_bytes == pytest.approx(145_000_000, abs=1)


def test_openvino_keeps_what_it_computes_with_beside_the_file_s_own_numbers() -> None:
    assert cpu_form(LLAMA_7B, "openvino", "q8_0", 1.25).weight_bytes == 6_738_415_616 * 34 // 16

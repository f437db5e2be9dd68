"""Files that were written here, or written again, as OpenVINO computes them: held to transformers on their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.convert import convert
from llama_demo.engines.openvino import OpenVINOEngine
from llama_demo.values import Sampling
from tests import tiny
from tests.checkpoints import k_quants, meta_model
from tests.checkpoints.meta_model import Shape
from tests.engines.test_fidelity import LIMIT, mean_divergence, openvino_distributions, reference

CONTEXT_TOKENS = 128
NEW_TOKENS = 24
LENGTH = 200


def text(first: int) -> list[int]:
    """Some ids, other ones for each `first`."""
    return [int(number) for number in np.random.default_rng(first).integers(5, 380, LENGTH)]


def greedy_by_transformers(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """With the weights in float16, as the file has them, and the arithmetic in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()
    model.generation_config.eos_token_id = None  # no text ends early, in either
    settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS}
    return [model.generate(torch.tensor([prompt]), **settings)[0, len(prompt) :].tolist() for prompt in prompts]


def greedy_by_openvino(file: Path, prompts: list[list[int]]) -> list[list[int]]:
    engine = OpenVINOEngine(
        file, name="f16", eos_ids=(), context_tokens=CONTEXT_TOKENS, cache_bytes=20_000_000, reproducible=True
    )
    try:
        streams = [engine.generate(prompt, Sampling(max_new_tokens=NEW_TOKENS, temperature=0.0)) for prompt in prompts]
        return [[token.id for token in stream] for stream in streams]
    finally:
        engine.close()


SHAPES = {
    "one shard": (Shape(), 1),
    "two shards, grouped queries": (Shape(kv_heads=2, ffn_dim_multiplier=1.3, multiple_of=64), 2),
    "eight shards": (Shape(dim=256, heads=8), 8),
}


SLOW = pytest.mark.slow


@pytest.fixture(
    params=[
        pytest.param("hugging face", marks=SLOW),
        "two shards, grouped queries",
        *(pytest.param(name, marks=SLOW) for name in ("one shard", "eight shards")),
    ]
)
def source(request: pytest.FixtureRequest, tmp_path: Path, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Path:
    """A checkpoint to be converted, in Hugging Face or in Meta's own format."""
    if request.param == "hugging face":
        return tiny_folder
    shape, shards = SHAPES[request.param]
    meta_model.write(tmp_path / "meta", shape, tiny_sentencepiece_folder / "tokenizer.model", shards=shards)
    return tmp_path / "meta"


def test_openvino_writes_transformers_greedy_tokens_in_half_precision_and_keeps_the_bound_in_eight_bits(
    source: Path, tmp_path: Path
) -> None:
    half, eight = tmp_path / "half.gguf", tmp_path / "eight.gguf"
    convert(source, half, to="gguf", quantization="f16")
    convert(source, eight, to="gguf", quantization="q8_0")
    folder = source
    if not (source / "config.json").is_file():
        folder = tmp_path / "hf"
        convert(source, folder, to="hf")
    prompts = [text(first)[:20] for first in range(6)]
    assert greedy_by_openvino(half, prompts) == greedy_by_transformers(folder, prompts)
    ids = text(7)
    assert mean_divergence(reference(folder, ids), openvino_distributions(eight, ids, tmp_path / "graph")) <= LIMIT


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose rows are whole blocks of the K-quants."""
    folder = tmp_path_factory.mktemp("k")
    tiny.write_byte_level(folder / "wide", hidden_size=k_quants.BLOCK, intermediate_size=512, num_hidden_layers=2)
    gguf.write_gguf(folder / "wide", folder / "exact.gguf", to="f32")
    return folder / "exact.gguf"


@pytest.mark.parametrize("kind", [pytest.param("Q4_1", marks=SLOW), "Q4_K"])
def test_a_type_that_openvino_rounds_is_written_again_and_then_computed_as_it_was_meant(
    kind: str, exact: Path, tmp_path: Path
) -> None:
    file, again, ids = tmp_path / "file.gguf", tmp_path / "again.gguf", text(3)
    k_quants.write_as(kind, exact, file)
    wanted = reference(file, ids)
    assert gguf.unfaithful_types(gguf.read_header(file)) == (kind,)
    assert mean_divergence(wanted, openvino_distributions(file, ids, tmp_path / "graph")) > 10 * LIMIT
    gguf.requantize(file, again)
    assert gguf.unfaithful_types(gguf.read_header(again)) == ()
    assert mean_divergence(wanted, openvino_distributions(again, ids, tmp_path / "graph again")) <= LIMIT


@pytest.mark.parametrize("kind", [pytest.param("Q6_K", marks=SLOW), "Q4_0 with a head of Q6_K"])
def test_six_bits_are_computed_as_they_are(kind: str, exact: Path, tmp_path: Path) -> None:
    """Files of Q4_0 usually have them in their output matrix."""
    file, ids = tmp_path / "file.gguf", text(3)
    k_quants.write_as(kind[:4], exact, file, head="Q6_K")
    assert gguf.unfaithful_types(gguf.read_header(file)) == ()
    made = openvino_distributions(file, ids, tmp_path / "graph")
    assert mean_divergence(reference(file, ids), made) <= LIMIT
    gguf.requantize(file, tmp_path / "again.gguf")
    assert gguf.read_header(tmp_path / "again.gguf").tensor_types == gguf.read_header(file).tensor_types

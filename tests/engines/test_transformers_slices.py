"""`pretraining_tp`: the numbers of slicing by hand, and what they cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from llama_demo.engines.transformers import TransformersEngine
from llama_demo.engines.transformers_slices import slice_model
from llama_demo.errors import BadCheckpoint
from llama_demo.messages import messages
from llama_demo.values import Sampling

IDS = torch.tensor([[1, 40, 77, 120, 55, 301, 12, 90]])


def plain(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def by_hand(model: Any, slices: int) -> torch.Tensor:
    """The logits with every product of a matrix cut into slices: the inputs of `o_proj` and `down_proj` are cut and the
    products added, the outputs of all others are cut and joined."""

    def joined(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        size = weight.shape[0] // slices
        return torch.cat([linear(hidden, weight[at * size : (at + 1) * size]) for at in range(slices)], dim=-1)

    def added(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        size = weight.shape[1] // slices
        spans = [slice(at * size, (at + 1) * size) for at in range(slices)]
        return sum(
            (linear(hidden[..., span], weight[:, span]) for span in spans[1:]),
            linear(hidden[..., spans[0]], weight[:, spans[0]]),
        )

    def replace(module: Any, product: Any) -> None:
        module.forward = lambda hidden: product(module.weight, hidden)

    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):
            replace(getattr(layer.self_attn, name), joined)
        replace(layer.self_attn.o_proj, added)
        for name in ("gate_proj", "up_proj"):
            replace(getattr(layer.mlp, name), joined)
        replace(layer.mlp.down_proj, added)
    replace(model.lm_head, joined)
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


@contextmanager
def products() -> Iterator[list[int]]:
    """How many matrix products there were, and how many operations they took."""
    counted = FlopCounterMode(display=False)
    found: list[int] = []
    with torch.profiler.profile() as profile, counted:
        yield found
    calls = sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))
    found.extend((calls, counted.get_total_flops()))


@pytest.mark.parametrize("slices", [2, 4])
def test_the_logits_are_those_of_slicing_by_hand(slices: int, tiny_folder: Path) -> None:
    model = plain(tiny_folder)
    with torch.no_grad():
        whole = model(IDS).logits
        slice_model(model, slices)
        sliced = model(IDS).logits
    assert torch.equal(sliced, by_hand(plain(tiny_folder), slices))
    assert not torch.equal(sliced, whole)
    assert torch.allclose(sliced, whole, atol=1e-4)


@pytest.mark.parametrize("slices", [2, 4])
def test_slices_cost_as_many_more_products_for_the_same_arithmetic(slices: int, tiny_folder: Path) -> None:
    model = plain(tiny_folder)
    with torch.no_grad():
        with products() as whole:
            model(IDS)
        slice_model(model, slices)
        with products() as sliced:
            model(IDS)
    assert sliced[1] == whole[1]
    assert sliced[0] == slices * whole[0]


def engine_of(folder: Path, **options: Any) -> TransformersEngine:
    return TransformersEngine(folder, name="tiny", eos_ids=(), context_tokens=128, reproducible=True, **options)


@pytest.mark.parametrize("said_by", ["the checkpoint", "the caller"])
def test_an_engine_computes_in_slices_where_the_checkpoint_or_the_caller_says_so(
    said_by: str, tmp_path: Path, tiny_folder: Path
) -> None:
    folder = tmp_path / "sliced"
    shutil.copytree(tiny_folder, folder)
    if said_by == "the checkpoint":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "pretraining_tp": 2}))
    engine = engine_of(folder, pretraining_tp=2 if said_by == "the caller" else 0)
    try:
        ids = IDS[0].tolist()
        logprobs = by_hand(plain(tiny_folder), 2)[0].log_softmax(-1)
        wanted = logprobs[torch.arange(len(ids) - 1), IDS[0, 1:]].numpy()
        np.testing.assert_allclose(engine.score(ids, 0).logprobs[1:], wanted, atol=1e-4)
        assert len(list(engine.generate(ids, Sampling(5, temperature=0.0)))) == 5
        assert type(engine._model.lm_head).__name__ == "ByRows"
    finally:
        engine.close()


def test_a_number_of_slices_that_does_not_divide_a_matrix_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        engine_of(tiny_folder, pretraining_tp=7)
    assert "its pretraining_tp is 7, and " in messages().reason(caught.value.problem)

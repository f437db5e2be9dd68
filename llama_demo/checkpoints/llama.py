"""A Llama checkpoint whatever format it came in: its configuration, its tensors under the names of transformers, and
where its tokenizer is. What is written from it is the writers' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_demo.checkpoints.safetensors_read import as_float32, read_tensors
from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


class SourceTensor(Protocol):
    """One tensor of a checkpoint. `type` is F32, F16 or BF16."""

    @property
    def path(self) -> Path:
        """The file to name where something is wrong with it."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:
        """The values [rows, row] as they are stored (bfloat16 as its bits), a few million at a time, in whole groups
        of `row_multiple` rows. Raises `BadCheckpoint` where they cannot be read."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`folder` is named in errors, `tokenizer` has tokenizer.json or tokenizer.model."""

    folder: Path
    tokenizer: Path
    config: Config
    tensors: Mapping[str, SourceTensor]


def float_slices(tensor: SourceTensor, row_multiple: int = 1) -> Iterator[NDArray[np.float32]]:
    """The values as float32 [rows, row], slice by slice. Raises `BadCheckpoint` for what is no number."""
    for items in tensor.raw(row_multiple):
        values = as_float32(items, tensor.type)
        if not np.isfinite(values).all():
            raise BadCheckpoint(str(tensor.path), Reason("checkpoint.no_number", name=tensor.name))
        yield values


def read_folder(folder: Path) -> Checkpoint:
    """A folder in Hugging Face format, its tensors' shapes held against its configuration. Raises `BadCheckpoint`."""
    path = folder / "config.json"
    try:
        values: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadCheckpoint(str(path), Reason("checkpoint.no_json")) from error
    config = Config(path, values)
    tensors = read_tensors(folder)
    check_shapes(config, tensors)
    return Checkpoint(folder, folder, config, tensors)


class Config:
    """A configuration in the words of transformers' config.json, each value asked for as the type it must have."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        """`path` is the file that they were read from."""
        self.path = path
        self.values = values
        if values.get("model_type") != "llama":
            raise self.bad(Reason("checkpoint.model_type", type=values.get("model_type")))
        if values.get("hidden_act", "silu") != "silu":
            raise self.bad(Reason("checkpoint.hidden_act", kind=values["hidden_act"]))
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        self._rope: Mapping[str, Any] = rope if isinstance(rope, dict) else {}

    def bad(self, problem: Reason) -> BadCheckpoint:
        return BadCheckpoint(str(self.path), problem)

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name))

    def count(self, name: str, default: int | None = None) -> int:
        value = default if self.values.get(name) is None else self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise self.bad(Reason("checkpoint.not_count", name=name, value=repr(value)))
        return value

    def real(self, name: str, default: float) -> float:
        value = self.values.get(name, self._rope.get(name, default))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise self.bad(Reason("checkpoint.not_above_0", name=name, value=repr(value)))
        return float(value)

    @property
    def rope_kind(self) -> str:
        """`default`, or how the rotary embeddings are scaled."""
        return str(self._rope.get("rope_type", self._rope.get("type", "default")))

    @property
    def heads(self) -> int:
        return self.count("num_attention_heads")

    @property
    def head_dim(self) -> int:
        return self.count("head_dim", max(1, self.count("hidden_size") // self.heads))


def check_shapes(config: Config, stored: Mapping[str, SourceTensor]) -> None:
    """Raises `BadCheckpoint` for a tensor that is missing or of another shape than config.json says."""
    hidden, wide, rows = config.count("hidden_size"), config.count("intermediate_size"), config.count("vocab_size")
    queries = config.heads * config.head_dim
    keys = config.count("num_key_value_heads", config.heads) * config.head_dim
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (rows, hidden), "model.norm.weight": (hidden,)}
    if OUTPUT in stored or not config.flag("tie_word_embeddings"):
        shapes[OUTPUT] = (rows, hidden)
    layers = min(config.count("num_hidden_layers"), len(stored))  # more layers than tensors: the next is missing anyway
    shapes |= {
        f"model.layers.{number}.{part}.weight": shape for number in range(layers) for part, shape in layer.items()
    }
    for name, shape in shapes.items():
        if name not in stored:
            raise BadCheckpoint(str(config.path.parent), Reason("checkpoint.tensor_missing", name=name))
        if stored[name].shape != shape:
            raise BadCheckpoint(
                str(config.path.parent),
                Reason("checkpoint.tensor_shape", name=name, there=str(stored[name].shape), shape=str(shape)),
            )

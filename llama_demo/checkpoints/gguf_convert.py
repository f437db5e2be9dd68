"""A Hugging Face Llama folder written as one GGUF file, a few rows in memory at a time.

Rotary embedding turns interleaved pairs in GGUF and halves in transformers, so the rows of `q_proj` and `k_proj` are
put into the other order within each head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
from numpy.typing import NDArray

from llama_demo.checkpoints.gguf_read import Value
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.checkpoints.gguf_write import (
    FILE_TYPES,
    QUANTIZATION_VERSION,
    PlannedTensor,
    Quantization,
    Report,
    encode_fields,
    quantize,
    type_for,
    write_container,
)
from llama_demo.checkpoints.safetensors_read import StoredTensor, read_tensors
from llama_demo.errors import BadCheckpoint

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_FLOAT16_MOST = float(np.finfo(np.float16).max)


def write_gguf(folder: Path, target: Path, *, to: Quantization = "q8_0", report: Report | None = None) -> None:
    """Writes the Llama in `folder` (config.json, safetensors, tokenizer.json or tokenizer.model) as `to`.

    `target` appears whole or not at all. Raises `BadCheckpoint` for anything that a GGUF file of the llama
    architecture cannot say (biases, scaled rotary embeddings), and `DiskFull`.
    """
    config = _Config(folder)
    stored = read_tensors(folder)
    _check_shapes(config, stored)
    tensors = _planned(config, stored, to)
    fields = {
        **_model_fields(config, to),
        **vocabulary_fields(folder, stored[_EMBEDDING].shape[0]),
    }
    write_container(target, encode_fields(fields), len(fields), tensors, report=report)


class _Config:
    """config.json, each value asked for as the type it must have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._values: dict[str, Any] = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BadCheckpoint(str(folder / "config.json"), "it is not readable as JSON") from error
        if self._values.get("model_type") != "llama":
            raise self.bad(f"its model_type is {self._values.get('model_type')}, and only llama can be written")
        if self._values.get("hidden_act", "silu") != "silu":
            raise self.bad(f"its hidden_act is {self._values['hidden_act']}, and only silu can be written")
        rope = self._values.get("rope_parameters") or self._values.get("rope_scaling") or {}
        self._rope: Mapping[str, Any] = rope if isinstance(rope, dict) else {}
        kind = self._rope.get("rope_type", self._rope.get("type", "default"))
        if kind != "default":
            raise self.bad(f"its rotary embeddings are scaled ({kind}), which cannot be written")

    def bad(self, problem: str) -> BadCheckpoint:
        return BadCheckpoint(str(self.folder / "config.json"), problem)

    def flag(self, name: str) -> bool:
        return bool(self._values.get(name))

    def count(self, name: str, default: int | None = None) -> int:
        value = default if self._values.get(name) is None else self._values[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise self.bad(f"its {name} is {value!r}, which is not a count")
        return value

    def real(self, name: str, default: float) -> float:
        value = self._values.get(name, self._rope.get(name, default))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise self.bad(f"its {name} is {value!r}, which is not a number above 0")
        return float(value)

    @property
    def heads(self) -> int:
        return self.count("num_attention_heads")

    @property
    def head_dim(self) -> int:
        return self.count("head_dim", max(1, self.count("hidden_size") // self.heads))


def _model_fields(config: _Config, to: Quantization) -> dict[str, Value]:
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": config.folder.name,
        "general.file_type": FILE_TYPES[to],
        "general.quantization_version": QUANTIZATION_VERSION,
        "llama.block_count": config.count("num_hidden_layers"),
        "llama.context_length": config.count("max_position_embeddings"),
        "llama.embedding_length": config.count("hidden_size"),
        "llama.feed_forward_length": config.count("intermediate_size"),
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.count("num_key_value_heads", config.heads),
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.real("rms_norm_eps", 1e-6),
        "llama.rope.freq_base": config.real("rope_theta", 10000.0),
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.count("vocab_size"),
    }


def _check_shapes(config: _Config, stored: Mapping[str, StoredTensor]) -> None:
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
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: (rows, hidden), "model.norm.weight": (hidden,)}
    if _OUTPUT in stored or not config.flag("tie_word_embeddings"):
        shapes[_OUTPUT] = (rows, hidden)
    layers = min(config.count("num_hidden_layers"), len(stored))  # more layers than tensors: the next is missing anyway
    shapes |= {
        f"model.layers.{number}.{part}.weight": shape for number in range(layers) for part, shape in layer.items()
    }
    for name, shape in shapes.items():
        if name not in stored:
            raise BadCheckpoint(str(config.folder), f"its tensor {name} is missing")
        if stored[name].shape != shape:
            raise BadCheckpoint(str(config.folder), f"its tensor {name} is {stored[name].shape} and not {shape}")


def _planned(config: _Config, stored: Mapping[str, StoredTensor], to: Quantization) -> list[PlannedTensor]:
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.count("num_hidden_layers"))
    planned = []
    for name, tensor in stored.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        written = names.get_name(name, try_suffixes=(".weight",))
        if written is None or not name.endswith(".weight"):
            raise BadCheckpoint(str(config.folder), f"its tensor {name} has no place in a GGUF file of a Llama")
        kind = type_for(tensor.shape, to)
        chunks = partial(_chunks, tensor, kind, _rotary_head_dim(config, tensor))
        planned.append(PlannedTensor(written, tensor.shape, kind, chunks))
    return planned


def _rotary_head_dim(config: _Config, tensor: StoredTensor) -> int:
    """The rows of one head where they must be put into another order, else 1."""
    if not tensor.name.endswith(("q_proj.weight", "k_proj.weight")):
        return 1
    if tensor.shape[0] % config.head_dim or config.head_dim % 2:
        raise BadCheckpoint(str(config.folder), f"its tensor {tensor.name} has {tensor.shape[0]} rows, not whole heads")
    return config.head_dim


def _chunks(tensor: StoredTensor, kind: GGMLQuantizationType, head_dim: int) -> Iterator[bytes]:
    for values in tensor.slices(head_dim):
        if kind == GGMLQuantizationType.F16 and np.abs(values).max() > _FLOAT16_MOST:
            raise BadCheckpoint(str(tensor.path), f"its tensor {tensor.name} holds numbers too large for float16")
        yield quantize(interleaved(values, head_dim) if head_dim > 1 else values, kind)


def interleaved(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """[heads * head_dim, row] from transformers' order within each head, halves, to GGUF's, pairs."""
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)

"""A GGUF file as a checkpoint under the names of transformers, in float32: the way back of `gguf_convert`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import MODEL_ARCH
from gguf.tensor_mapping import get_tensor_name_map
from numpy.typing import NDArray

from llama_demo.checkpoints.gguf import header_of
from llama_demo.checkpoints.gguf_read import Container, Metadata, Tensor, read_container, tensor_slices
from llama_demo.checkpoints.llama import Checkpoint, Config, SourceTensor, check_shapes
from llama_demo.reasons import Reason

_ENDS = ("bos", "eos")


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """See `SourceTensor`. `head_dim` above 1: the rows of each head are pairs, and are put into halves."""

    path: Path
    name: str
    stored: Tensor
    head_dim: int = 1

    @property
    def type(self) -> str:
        return "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:
        left: NDArray[np.float32] | None = None
        group = max(row_multiple, self.head_dim)
        with self.path.open("rb") as file:
            for rows in tensor_slices(file, self.path, self.stored):
                joined = rows if left is None else np.concatenate([left, rows])
                whole = len(joined) // group * group
                left = joined[whole:]
                if whole:
                    yield halved(joined[:whole], self.head_dim) if self.head_dim > 1 else joined[:whole]


def halved(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """[heads * head_dim, row] from GGUF's order within each head, pairs, to transformers', halves."""
    pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def read_gguf(path: Path, tokenizer: Path) -> Checkpoint:
    """The file with the tokenizer in the folder `tokenizer`; no weights are read yet. Raises `BadCheckpoint`."""
    container = read_container(path)
    config = Config(path, _values(container))
    tensors: dict[str, SourceTensor] = {}
    names = _names(config.count("num_hidden_layers"))
    for stored in container.tensors:
        name = names.get(stored.name.removesuffix(".weight"))
        if name is None:
            raise config.bad(Reason("checkpoint.no_place_unscaled", name=stored.name))
        rotary = name.endswith(("q_proj", "k_proj"))
        tensors[f"{name}.weight"] = GGUFTensor(path, f"{name}.weight", stored, config.head_dim if rotary else 1)
    check_shapes(config, tensors)
    return Checkpoint(path.parent, tokenizer, config, tensors)


def read_values(path: Path) -> Mapping[str, Any]:
    """The file's configuration in transformers' words. Raises `BadCheckpoint`."""
    return _values(read_container(path))


def _names(layers: int) -> dict[str, str]:
    """GGUF's names to those of transformers, both without `.weight`."""
    parts = ["input_layernorm", "post_attention_layernorm"]
    parts += [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    names = ["model.embed_tokens", "model.norm", "lm_head"]
    names += [f"model.layers.{layer}.{part}" for layer in range(layers) for part in parts]
    known = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    return {str(known.get_name(name)): name for name in names}


def _values(container: Container) -> Mapping[str, Any]:
    header, metadata = header_of(container), Metadata(container.path, container.fields)
    fields = container.fields
    if str(fields.get("llama.rope.scaling.type", "none")) != "none":
        raise metadata.bad(Reason("checkpoint.rope"))
    ends = {f"{end}_token_id": metadata.token_id(f"tokenizer.ggml.{end}_token_id", header.vocab_size) for end in _ENDS}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": header.vocab_size,
        "hidden_size": header.embedding_length,
        "intermediate_size": header.feed_forward_length,
        "num_hidden_layers": header.block_count,
        "num_attention_heads": header.head_count,
        "num_key_value_heads": header.head_count_kv,
        "head_dim": header.head_dim,
        "max_position_embeddings": header.context_length,
        "rms_norm_eps": float(str(fields.get("llama.attention.layer_norm_rms_epsilon", 1e-5))),
        "rope_theta": float(str(fields.get("llama.rope.freq_base", 10000.0))),
        "tie_word_embeddings": header.tied_embeddings,
        **{name: number for name, number in ends.items() if number is not None},
    }

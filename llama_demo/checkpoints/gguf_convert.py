"""A Hugging Face Llama folder written as one GGUF file, a few rows in memory at a time.

Rotary embedding turns interleaved pairs in GGUF and halves in transformers, so the rows of `q_proj` and `k_proj` are
put into the other order within each head.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
from llama_demo.checkpoints.llama import EMBEDDING, Checkpoint, Config, SourceTensor, float_slices, read_folder
from llama_demo.errors import BadCheckpoint
from llama_demo.prompts import template_for
from llama_demo.reasons import Reason

_FLOAT16_MOST = float(np.finfo(np.float16).max)


def write_gguf(folder: Path, target: Path, *, to: Quantization = "q8_0", report: Report | None = None) -> None:
    """Writes the Llama in `folder` (config.json, safetensors, tokenizer.json or tokenizer.model) as `to`.

    `target` appears whole or not at all. Raises `BadCheckpoint` for anything that a GGUF file of the llama
    architecture cannot say (biases, scaled rotary embeddings), and `DiskFull`.
    """
    write_llama(read_folder(folder), target, to=to, report=report)


def write_llama(source: Checkpoint, target: Path, *, to: Quantization = "q8_0", report: Report | None = None) -> None:
    """The same from a checkpoint that has been read already."""
    config = source.config
    if config.rope_kind != "default":
        raise config.bad(Reason("checkpoint.rope_kind", kind=config.rope_kind))
    tensors = _planned(source, to)
    fields = {
        **_model_fields(source, to),
        **vocabulary_fields(source.tokenizer, source.tensors[EMBEDDING].shape[0]),
    }
    if template := template_for(source.folder.resolve().name):
        fields.setdefault("tokenizer.chat_template", template)
    write_container(target, encode_fields(fields), len(fields), tensors, report=report)


def _model_fields(source: Checkpoint, to: Quantization) -> dict[str, Value]:
    config = source.config
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": source.folder.name,
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


def _planned(source: Checkpoint, to: Quantization) -> list[PlannedTensor]:
    config = source.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.count("num_hidden_layers"))
    planned = []
    for name, tensor in source.tensors.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        written = names.get_name(name, try_suffixes=(".weight",))
        if written is None or not name.endswith(".weight"):
            raise BadCheckpoint(str(source.folder), Reason("checkpoint.no_place_in_gguf", name=name))
        kind = type_for(tensor.shape, to)
        chunks = partial(_chunks, tensor, kind, _rotary_head_dim(config, tensor))
        planned.append(PlannedTensor(written, tensor.shape, kind, chunks))
    return planned


def _rotary_head_dim(config: Config, tensor: SourceTensor) -> int:
    """The rows of one head where they must be put into another order, else 1."""
    if not tensor.name.endswith(("q_proj.weight", "k_proj.weight")):
        return 1
    if tensor.shape[0] % config.head_dim or config.head_dim % 2:
        raise BadCheckpoint(str(tensor.path), Reason("checkpoint.tensor_rows", name=tensor.name, rows=tensor.shape[0]))
    return config.head_dim


def _chunks(tensor: SourceTensor, kind: GGMLQuantizationType, head_dim: int) -> Iterator[bytes]:
    for values in float_slices(tensor, head_dim):
        if kind == GGMLQuantizationType.F16 and np.abs(values).max() > _FLOAT16_MOST:
            raise BadCheckpoint(str(tensor.path), Reason("checkpoint.too_large", name=tensor.name))
        yield quantize(interleaved(values, head_dim) if head_dim > 1 else values, kind)


def interleaved(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """[heads * head_dim, row] from transformers' order within each head, halves, to GGUF's, pairs."""
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)

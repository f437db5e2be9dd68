"""A model's configuration in the words of `LlamaConfig`, wherever it stands: config.json, a GGUF header, params.json,
or for the family's own repositories what is known of them before any download.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llama_demo.catalog import Entry
from llama_demo.checkpoints.gguf_source import read_values
from llama_demo.checkpoints.meta_params import find_tokenizer, read_params
from llama_demo.entry_files import read_config
from llama_demo.sheet.parameters import layer_parameters
from llama_demo.sheet.sentencepiece import SENTENCEPIECE, open_sentencepiece

Source = Literal["config", "gguf", "meta", "known", "none"]

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "initializer_range": 0.02,
    "pretraining_tp": 1,
    "use_cache": True,
    "dtype": None,
}
"""Every field of transformers' `LlamaConfig`, and its type of weights, with what holds where a file leaves it out."""

_FAMILY: Mapping[tuple[int, int, int], tuple[int, int, int]] = {
    (32, 32, 128): (4096, 32, 11008),
    (40, 40, 128): (5120, 40, 13824),
    (80, 8, 128): (8192, 64, 28672),
    (22, 4, 64): (2048, 32, 5632),
}
"""Layers, key-value heads and head size to hidden size, heads and intermediate size: Llama-2's three, and TinyLlama."""


@dataclass(frozen=True, slots=True)
class Described:
    """`values` in transformers' words, empty where nothing is known."""

    source: Source
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `is_given`: the files say it; else `value` is what holds without."""

    name: str
    value: Any
    is_given: bool


def describe(entry: Entry, files: Path | None) -> Described:
    """What `files`, or without them the catalog, say of the model. Raises `BadCheckpoint`."""
    if files is None:
        values = _known(entry)
        return Described("known" if values else "none", values)
    if files.is_file():
        return Described("gguf", _flat(read_values(files)))
    if entry.format == "meta":
        params = read_params(files)
        rows = params.vocab_size or open_sentencepiece(find_tokenizer(files) / SENTENCEPIECE).get_piece_size()
        return Described("meta", _flat(params.config(rows, tied=False, dtype="bfloat16")))
    return Described("config", _flat(read_config(files)))


def fields_of(described: Described) -> tuple[Field, ...]:
    values = described.values
    if not values:
        return ()
    filled = {
        "num_key_value_heads": values.get("num_attention_heads"),
        "head_dim": int(values["hidden_size"]) // int(values["num_attention_heads"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    found = []
    for name, default in DEFAULTS.items():
        given = values.get(name)
        found.append(Field(name, filled.get(name, default) if given is None else given, given is not None))
    return tuple(found)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what older files call otherwise under its name of today."""
    made = dict(values)
    scaling = made.pop("rope_scaling", None)
    theta = made.pop("rope_theta", None)
    if made.get("rope_parameters") is None and (theta is not None or isinstance(scaling, dict)):
        scaling = scaling if isinstance(scaling, dict) else {}
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        made["rope_parameters"] = {"rope_theta": theta or 10000.0, **scaling, "rope_type": kind}
    if made.get("dtype") is None and made.get("torch_dtype") is not None:
        made["dtype"] = made["torch_dtype"]
    return made


def _known(entry: Entry) -> dict[str, Any]:
    """What follows from the catalog's numbers for a model of the family; the vocabulary is what is left over."""
    wide = _FAMILY.get((entry.layers, entry.kv_heads, entry.head_size))
    if wide is None:
        return {}
    hidden, heads, intermediate = wide
    values: dict[str, Any] = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "num_hidden_layers": entry.layers,
        "num_key_value_heads": entry.kv_heads,
        "head_dim": entry.head_size,
        "max_position_embeddings": entry.context_tokens or None,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    rest = entry.parameters - entry.layers * layer_parameters(values) - hidden
    if rest <= 0 or rest % (2 * hidden):
        return {}
    return {**values, "vocab_size": rest // (2 * hidden)}

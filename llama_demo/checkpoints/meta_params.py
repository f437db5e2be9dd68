"""`params.json` of an original Meta checkpoint, and the configuration that follows from it. It reads no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

PARAMS = "params.json"
TOKENIZER = "tokenizer.model"
CONTEXT_TOKENS = 4096
"""Llama-2's; the file does not say it."""
VOCABULARY = 32000
"""Llama-2's, for arithmetic before the weights are read: the file may say -1, as its size is the tokenizer's."""
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Params:
    """A model's shape in Meta's words. `vocab_size` is None where the file leaves it to the tokenizer."""

    path: Path
    dim: int
    layers: int
    heads: int
    kv_heads: int
    wide: int
    """Numbers inside the feed-forward network, worked out from `multiple_of` and `ffn_dim_multiplier`."""
    norm_eps: float
    rope_theta: float
    context_tokens: int
    vocab_size: int | None

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def parameters(self) -> int:
        """All numbers of the model, by arithmetic."""
        keys = self.kv_heads * self.head_dim
        layer = 2 * self.dim * self.dim + 2 * self.dim * keys + 3 * self.dim * self.wide + 2 * self.dim
        return 2 * (self.vocab_size or VOCABULARY) * self.dim + self.layers * layer + self.dim

    def config(self, vocab_size: int, *, tied: bool, dtype: str) -> dict[str, Any]:
        """The same in transformers' words, as config.json has it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.dim,
            "initializer_range": 0.02,
            "intermediate_size": self.wide,
            "max_position_embeddings": self.context_tokens,
            "mlp_bias": False,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": tied,
            "torch_dtype": dtype,
            "use_cache": True,
            "vocab_size": vocab_size,
        }


def read_params(folder: Path) -> Params:
    """Raises `BadCheckpoint` naming the field at fault, and for the page that an expired link leaves."""
    path = folder / PARAMS
    return _Reader(path, _read_json(path)).params()


def find_tokenizer(folder: Path) -> Path:
    """The folder with `tokenizer.model`: Meta's download puts it beside the model's folder, the Hub into it.

    Raises `BadCheckpoint` where it is in neither.
    """
    for place in (folder, folder.resolve().parent):
        if (place / TOKENIZER).is_file():
            return place
    raise BadCheckpoint(str(folder), Reason("checkpoint.missing_here_and_above", file=TOKENIZER))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadCheckpoint(str(path), Reason("checkpoint.cannot_be_read")) from None
    if text.lstrip().startswith("<"):
        raise BadCheckpoint(str(path), Reason("checkpoint.expired"))
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise BadCheckpoint(str(path), Reason("checkpoint.no_json")) from None


class _Reader:
    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path, self._values = path, values

    def params(self) -> Params:
        dim, heads = self._count("dim"), self._count("n_heads")
        if dim % heads or dim // heads % 2:
            raise self._bad(Reason("checkpoint.heads", heads=heads, dim=dim))
        kv_heads = self._count("n_kv_heads", heads)
        if heads % kv_heads:
            raise self._bad(Reason("checkpoint.kv_heads", heads=heads, kv_heads=kv_heads))
        if self._values.get("use_scaled_rope") or "moe" in self._values:
            raise self._bad(Reason("checkpoint.later_family"))
        vocabulary = self._values.get("vocab_size", -1)
        rope_theta = self._real("rope_theta", 10000.0)
        return Params(
            path=self._path,
            dim=dim,
            layers=self._count("n_layers"),
            heads=heads,
            kv_heads=kv_heads,
            wide=self._wide(dim),
            norm_eps=self._real("norm_eps"),
            rope_theta=rope_theta,
            context_tokens=self._count("max_seq_len", CONTEXT_TOKENS),
            vocab_size=None if vocabulary == -1 else self._count("vocab_size"),
        )

    def _wide(self, dim: int) -> int:
        """Two thirds of 4 x dim, times the multiplier, up to the next multiple, in the order in which Meta's code
        rounds."""
        wide = int(2 * (4 * dim) / 3)
        if self._values.get("ffn_dim_multiplier") is not None:
            wide = int(self._real("ffn_dim_multiplier") * wide)
        multiple = self._count("multiple_of", 256)
        return -(-wide // multiple) * multiple

    def _bad(self, problem: Reason) -> BadCheckpoint:
        return BadCheckpoint(str(self._path), problem)

    def _count(self, name: str, default: int | None = None) -> int:
        value = default if self._values.get(name) is None else self._values[name]
        if value is None:
            raise self._bad(Reason("checkpoint.lacks", names=name))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
            raise self._bad(Reason("checkpoint.not_count", name=name, value=str(value)[:40]))
        return value

    def _real(self, name: str, default: float | None = None) -> float:
        value = default if self._values.get(name) is None else self._values[name]
        if value is None:
            raise self._bad(Reason("checkpoint.lacks", names=name))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise self._bad(Reason("checkpoint.not_above_0", name=name, value=str(value)[:40]))
        return float(value)

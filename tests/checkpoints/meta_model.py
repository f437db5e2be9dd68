"""Makes small random checkpoints in Meta's own layout, and computes what they compute from the paper's definitions.

The forward pass is the judge of the conversion: complex rotary embedding over interleaved pairs, RMSNorm, SwiGLU and
grouped queries, written without a look at transformers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SEED = 7
COLUMN_PARALLEL = ("wq", "wk", "wv", "w1", "w3", "output")
ROW_PARALLEL = ("wo", "w2", "tok_embeddings")


@dataclass(frozen=True)
class Shape:
    dim: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int | None = None
    multiple_of: int = 32
    ffn_dim_multiplier: float | None = None
    vocabulary: int = 416
    rope_theta: float | None = None
    norm_eps: float = 1e-5

    @property
    def wide(self) -> int:
        wide = int(2 * 4 * self.dim / 3)
        if self.ffn_dim_multiplier is not None:
            wide = int(self.ffn_dim_multiplier * wide)
        return self.multiple_of * ((wide + self.multiple_of - 1) // self.multiple_of)

    def params(self) -> dict[str, Any]:
        named = {
            "dim": self.dim,
            "n_layers": self.layers,
            "n_heads": self.heads,
            "n_kv_heads": self.kv_heads,
            "norm_eps": self.norm_eps,
            "multiple_of": self.multiple_of,
            "ffn_dim_multiplier": self.ffn_dim_multiplier,
            "rope_theta": self.rope_theta,
            "vocab_size": -1,
        }
        return {name: value for name, value in named.items() if value is not None}


def weights(shape: Shape, dtype: torch.dtype, *, tied: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor whole, under Meta's names."""
    random = torch.Generator().manual_seed(SEED)
    dim, head = shape.dim, shape.dim // shape.heads
    keys = (shape.kv_heads or shape.heads) * head

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=random) * 0.15).to(dtype)

    def norm() -> torch.Tensor:
        return (1 + 0.2 * torch.randn(dim, generator=random)).to(dtype)

    made = {"tok_embeddings.weight": matrix(shape.vocabulary, dim), "norm.weight": norm()}
    if not tied:
        made["output.weight"] = matrix(shape.vocabulary, dim)
    for layer in range(shape.layers):
        parts = {
            "attention.wq": matrix(dim, dim),
            "attention.wk": matrix(keys, dim),
            "attention.wv": matrix(keys, dim),
            "attention.wo": matrix(dim, dim),
            "feed_forward.w1": matrix(shape.wide, dim),
            "feed_forward.w2": matrix(dim, shape.wide),
            "feed_forward.w3": matrix(shape.wide, dim),
            "attention_norm": norm(),
            "ffn_norm": norm(),
        }
        made |= {f"layers.{layer}.{name}.weight": tensor for name, tensor in parts.items()}
    return made


def write(
    folder: Path,
    shape: Shape,
    tokenizer: Path,
    *,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    tied: bool = False,
) -> dict[str, torch.Tensor]:
    """A folder as Meta's download leaves it, with its checksums. Returns the whole tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = weights(shape, dtype, tied=tied)
    for number in range(shards):
        part = {name: cut(name, tensor, number, shards) for name, tensor in whole.items()}
        part["rope.freqs"] = frequencies(shape)
        torch.save(part, folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text(json.dumps(shape.params()))
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    write_checklist(folder)
    return whole


def write_checklist(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.name not in ("checklist.chk", "tokenizer.model"))
    lines = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (folder / "checklist.chk").write_text("\n".join(lines) + "\n")


def cut(name: str, tensor: torch.Tensor, number: int, shards: int) -> torch.Tensor:
    kind = name.split(".")[-2]
    if kind in COLUMN_PARALLEL:
        return tensor.chunk(shards, dim=0)[number].clone()
    if kind in ROW_PARALLEL:
        return tensor.chunk(shards, dim=1)[number].clone()
    return tensor.clone()


def frequencies(shape: Shape) -> torch.Tensor:
    head = shape.dim // shape.heads
    powers: torch.Tensor = (shape.rope_theta or 10000.0) ** (-torch.arange(0, head, 2).float() / head)
    return powers


def logits(shape: Shape, tensors: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """float32 [length, vocabulary] of the next token after each of `ids` [length]."""
    w = {name: tensor.float() for name, tensor in tensors.items()}
    length, head = len(ids), shape.dim // shape.heads
    kv_heads = shape.kv_heads or shape.heads
    turns = torch.polar(torch.ones(length, head // 2), torch.outer(torch.arange(length).float(), frequencies(shape)))
    mask = torch.full((length, length), float("-inf")).triu(1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + shape.norm_eps) * w[name]

    def rotated(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(length, -1, head // 2, 2))
        return torch.view_as_real(pairs * turns[:, None]).reshape(x.shape)

    x = w["tok_embeddings.weight"][ids]
    for layer in range(shape.layers):
        at = f"layers.{layer}"
        h = norm(x, f"{at}.attention_norm.weight")
        q = rotated((h @ w[f"{at}.attention.wq.weight"].T).view(length, shape.heads, head))
        k = rotated((h @ w[f"{at}.attention.wk.weight"].T).view(length, kv_heads, head))
        v = (h @ w[f"{at}.attention.wv.weight"].T).view(length, kv_heads, head)
        k, v = (part.repeat_interleave(shape.heads // kv_heads, dim=1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / head**0.5 + mask
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(length, shape.dim)
        x = x + mixed @ w[f"{at}.attention.wo.weight"].T
        h = norm(x, f"{at}.ffn_norm.weight")
        gate = torch.nn.functional.silu(h @ w[f"{at}.feed_forward.w1.weight"].T)
        x = x + (gate * (h @ w[f"{at}.feed_forward.w3.weight"].T)) @ w[f"{at}.feed_forward.w2.weight"].T
    head_matrix = w.get("output.weight", w["tok_embeddings.weight"])
    return norm(x, "norm.weight") @ head_matrix.T

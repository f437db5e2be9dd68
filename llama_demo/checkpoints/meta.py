"""Original Meta checkpoints: `params.json`, `consolidated.NN.pth`, `tokenizer.model`, read as transformers names them.

The shards are slices of each matrix, made for as many GPUs; their files are mapped, never unpickled as programs, and a
tensor is put together some rows at a time. Rotary embedding turns interleaved pairs here and halves in transformers,
so the rows of `wq` and `wk` are put into the other order within each head, of which `wk` may have fewer.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llama_demo.checkpoints.llama import EMBEDDING, OUTPUT, Checkpoint, Config, check_shapes
from llama_demo.checkpoints.meta_params import Params, find_tokenizer, read_params
from llama_demo.checkpoints.safetensors_read import ITEMS, rows_of_a_slice
from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

CHECKLIST = "checklist.chk"
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LAYER_PARTS = {
    "attention.wq": ("self_attn.q_proj", 0),
    "attention.wk": ("self_attn.k_proj", 0),
    "attention.wv": ("self_attn.v_proj", 0),
    "attention.wo": ("self_attn.o_proj", 1),
    "feed_forward.w1": ("mlp.gate_proj", 0),
    "feed_forward.w2": ("mlp.down_proj", 1),
    "feed_forward.w3": ("mlp.up_proj", 0),
    "attention_norm": ("input_layernorm", None),
    "ffn_norm": ("post_attention_layernorm", None),
}
"""Meta's name of a part of a layer: transformers' name, and on which dimension its shards are joined (None: copies)."""
_TOP_PARTS = {
    "tok_embeddings.weight": (EMBEDDING, 1),
    "norm.weight": ("model.norm.weight", None),
    "output.weight": (OUTPUT, 0),
}
_LAYER = re.compile(r"layers\.(\d{1,4})\.(.+)\.weight")
_ROTARY = ("wq.weight", "wk.weight")
_HASHED_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class JoinedTensor:
    """One tensor in its shards' slices, under transformers' name. `head_dim` is above 1 where the rows of each head
    are put into transformers' order."""

    path: Path
    name: str
    type: str
    shape: tuple[int, ...]
    shards: Sequence[torch.Tensor]
    dimension: int
    head_dim: int

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:
        multiple = math.lcm(row_multiple, self.head_dim)
        rows, row = math.prod(self.shape[:-1]), self.shape[-1]
        at_once = rows_of_a_slice(row, multiple)
        for start in range(0, rows, at_once):
            items = self._rows(start, min(rows, start + at_once))
            yield halves(items, self.head_dim) if self.head_dim > 1 else items

    def _rows(self, start: int, end: int) -> NDArray[Any]:
        if len(self.shape) == 1:
            return _items(self.shards[0][None], self.type)
        if self.dimension == 1:
            return np.concatenate([_items(shard[start:end], self.type) for shard in self.shards], axis=1)
        parts, first = [], 0
        for shard in self.shards:
            low, high = max(0, start - first), min(len(shard), end - first)
            if low < high:
                parts.append(_items(shard[low:high], self.type))
            first += len(shard)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def halves(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """[heads * head_dim, row] from Meta's order within each head, interleaved pairs, to transformers', halves."""
    pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _items(part: torch.Tensor, kind: str) -> NDArray[Any]:
    """A tensor's numbers as numpy holds them, bfloat16 as its bits."""
    if kind == "BF16":
        part = part.contiguous().view(torch.int16)
    items: NDArray[Any] = part.numpy()
    return items.view(ITEMS[kind])


def read_meta(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every shape held against `params.json`. No weights are read yet.

    A head that shares the embedding's matrix may be left out of the shards. Raises `BadCheckpoint` for a shard that is
    missing, cut short, carries code or does not match the others, and for anything that is not a Llama.
    """
    params = read_params(folder)
    tokenizer = find_tokenizer(folder)
    files = _shard_files(folder)
    shards = [_open_shard(file) for file in files]
    for file, shard in zip(files[1:], shards[1:], strict=True):
        if shard.keys() != shards[0].keys():
            raise BadCheckpoint(str(file), Reason("checkpoint.other_tensors", file=files[0].name))
    _check_count(params, files, shards[0])
    tensors = {tensor.name: tensor for name in shards[0] if (tensor := _join(params, files, shards, name)) is not None}
    if EMBEDDING not in tensors:
        raise BadCheckpoint(str(files[0]), Reason("checkpoint.no_embedding"))
    rows = tensors[EMBEDDING].shape[0]
    if params.vocab_size not in (None, rows):
        raise BadCheckpoint(str(params.path), Reason("checkpoint.vocab_size", size=params.vocab_size, rows=rows))
    dtype = DTYPE_NAMES[tensors[EMBEDDING].type]
    config = Config(params.path, params.config(rows, tied=OUTPUT not in tensors, dtype=dtype))
    check_shapes(config, tensors)
    return Checkpoint(folder, tokenizer, config, tensors)


def _shard_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("consolidated.*.pth"))
    expected = [folder / f"consolidated.{number:02}.pth" for number in range(max(1, len(files)))]
    expected += [folder / name for name in _checksums(folder) if re.fullmatch(r"consolidated\.\d\d\.pth", name)]
    for file in expected:
        if not file.is_file():
            raise BadCheckpoint(str(folder), Reason("checkpoint.shard_missing", file=file.name))
    return files


def _open_shard(file: Path) -> dict[str, torch.Tensor]:
    """The shard's tensors, mapped from the file. Nothing that the file says is run."""
    with file.open("rb") as content:
        if content.read(4) != b"PK\x03\x04":
            raise BadCheckpoint(str(file), Reason("checkpoint.no_archive"))
    try:
        loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        raise BadCheckpoint(str(file), Reason("checkpoint.code")) from None
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, AssertionError):
        raise BadCheckpoint(str(file), Reason("checkpoint.cut_or_damaged")) from None
    if not isinstance(loaded, dict) or not loaded:
        raise BadCheckpoint(str(file), Reason("checkpoint.no_named_tensors"))
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise BadCheckpoint(str(file), Reason("checkpoint.more_than_tensors"))
        if tensor.dtype not in _TYPES and not name.endswith("rope.freqs"):
            raise BadCheckpoint(str(file), Reason("checkpoint.odd_type", name=name, type=tensor.dtype))
        if tensor.layout != torch.strided or not 1 <= tensor.ndim <= 2:
            raise BadCheckpoint(str(file), Reason("checkpoint.no_matrix", name=name))
    return {name: tensor for name, tensor in loaded.items() if not name.endswith("rope.freqs")}


def _check_count(params: Params, files: Sequence[Path], shard: Mapping[str, torch.Tensor]) -> None:
    """How many shards there are can be told from how narrow each one's slices are."""
    slice_ = shard.get("layers.0.attention.wq.weight")
    if slice_ is None or slice_.ndim != 2 or slice_.shape[1] != params.dim or params.dim % len(slice_):
        raise BadCheckpoint(str(files[0]), Reason("checkpoint.no_query"))
    count = params.dim // len(slice_)
    if count != len(files):
        problem = Reason("checkpoint.shards", there=len(files), count=count)
        if count > len(files):
            missing = f"consolidated.{len(files):02}.pth"
            problem = Reason("checkpoint.shards_missing", there=len(files), count=count, file=missing)
        raise BadCheckpoint(str(files[0].parent), problem)


def _join(
    params: Params, files: Sequence[Path], shards: Sequence[Mapping[str, torch.Tensor]], name: str
) -> JoinedTensor | None:
    written, dimension = _place(files[0], name)
    parts = [shard[name] for shard in shards]
    if len({part.dtype for part in parts}) > 1 or len({part.ndim for part in parts}) > 1:
        raise BadCheckpoint(str(files[0]), Reason("checkpoint.shard_type", name=name))
    if dimension is None:
        if any(not torch.equal(parts[0], part) for part in parts[1:]):
            raise BadCheckpoint(str(files[0]), Reason("checkpoint.shard_differs", name=name))
        dimension, parts = 0, parts[:1]
    if (
        dimension >= parts[0].ndim
        or len({(*part.shape[:dimension], *part.shape[dimension + 1 :]) for part in parts}) > 1
    ):
        raise BadCheckpoint(str(files[0]), Reason("checkpoint.shard_shape", name=name))
    shape = list(parts[0].shape)
    shape[dimension] = sum(part.shape[dimension] for part in parts)
    head_dim = params.head_dim if name.endswith(_ROTARY) else 1
    if shape[0] % head_dim:
        raise BadCheckpoint(str(files[0]), Reason("checkpoint.rows", name=name, rows=shape[0]))
    return JoinedTensor(files[0], written, _TYPES[parts[0].dtype], tuple(shape), parts, dimension, head_dim)


def _place(file: Path, name: str) -> tuple[str, int | None]:
    """transformers' name for a tensor, and how its shards are joined."""
    if name in _TOP_PARTS:
        return _TOP_PARTS[name]
    found = _LAYER.fullmatch(name)
    if found is None or found[2] not in _LAYER_PARTS:
        raise BadCheckpoint(str(file), Reason("checkpoint.no_place", name=name[:60]))
    part, dimension = _LAYER_PARTS[found[2]]
    return f"model.layers.{int(found[1])}.{part}.weight", dimension


def _checksums(folder: Path) -> dict[str, str]:
    """MD5 by file name, as `checklist.chk` has them; none where there is no list."""
    try:
        lines = (folder / CHECKLIST).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    parts = [line.split() for line in lines]
    named = {part[1].removeprefix("*").removeprefix("./"): part[0].lower() for part in parts if len(part) == 2}
    return {name: md5 for name, md5 in named.items() if len(md5) == 32 and "/" not in name}


def checked_bytes(folder: Path) -> int:
    """How much `verify` will read."""
    return sum((folder / name).stat().st_size for name in _checksums(folder) if (folder / name).is_file())


def verify(folder: Path, tell: Callable[[int], None]) -> None:
    """Holds every file against `checklist.chk`; `tell` gets the bytes read so far. Raises `BadCheckpoint`."""
    done = 0
    for name, expected in _checksums(folder).items():
        if not (folder / name).is_file():
            raise BadCheckpoint(str(folder), Reason("checkpoint.listed", name=name, list=CHECKLIST))
        digest = hashlib.md5(usedforsecurity=False)
        with (folder / name).open("rb") as file:
            while content := file.read(_HASHED_AT_ONCE):
                digest.update(content)
                done += len(content)
                tell(done)
        if digest.hexdigest() != expected:
            raise BadCheckpoint(str(folder / name), Reason("checkpoint.checksum", list=CHECKLIST))

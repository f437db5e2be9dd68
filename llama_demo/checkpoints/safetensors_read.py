"""Reads the tensors of a Hugging Face folder's safetensors files, some rows at a time, without torch, bfloat16 too.

As with GGUF, nothing declared in a file is believed before it is held against the bytes that are there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

ITEMS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The types that are read, as numpy holds them; it has no bfloat16, so one of those is held as its bits."""
_MOST_HEADER_BYTES = 100_000_000
_SLICE_ITEMS = 2**22


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies. `type` is the format's own name for it: F32, F16 or BF16."""

    path: Path
    name: str
    type: str
    shape: tuple[int, ...]
    offset: int

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:
        """The values [rows, row] as they are stored, a few million at a time, in whole groups of `row_multiple` rows.

        Raises `BadCheckpoint` where the file ends too soon.
        """
        row_items = self.shape[-1]
        rows_left = math.prod(self.shape[:-1])
        row_bytes = row_items * item_bytes(self.type)
        rows_at_once = rows_of_a_slice(row_items, row_multiple)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while rows_left:
                rows = min(rows_left, rows_at_once)
                raw = file.read(rows * row_bytes)
                if len(raw) != rows * row_bytes:
                    raise BadCheckpoint(str(self.path), Reason("checkpoint.ends_inside", name=self.name))
                yield np.frombuffer(raw, ITEMS[self.type]).reshape(rows, row_items)
                rows_left -= rows


def rows_of_a_slice(row_items: int, row_multiple: int) -> int:
    """How many rows are held in memory at once: whole groups of `row_multiple`."""
    return max(1, _SLICE_ITEMS // (row_items * row_multiple)) * row_multiple


def item_bytes(kind: str) -> int:
    return np.dtype(ITEMS[kind]).itemsize


def as_float32(items: NDArray[Any], kind: str) -> NDArray[np.float32]:
    if kind == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (items.astype(np.uint32) << 16).view(np.float32)
    return items.astype(np.float32, copy=False)


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of the folder's `*.safetensors`, by name. Raises `BadCheckpoint`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint(str(folder), Reason("checkpoint.no_safetensors"))
    tensors = {tensor.name: tensor for file in files for tensor in _read_header(file)}
    for name in _indexed(folder / "model.safetensors.index.json"):
        if name not in tensors:
            raise BadCheckpoint(str(folder), Reason("checkpoint.safetensors_missing", name=name))
    return tensors


def _indexed(index: Path) -> list[str]:
    if not index.is_file():
        return []
    try:
        return list(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise BadCheckpoint(str(index), Reason("checkpoint.no_index")) from None


def _read_header(path: Path) -> Iterator[StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise BadCheckpoint(str(path), Reason("checkpoint.safetensors_cut"))
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                tensor = StoredTensor(path, name, str(entry["dtype"]), tuple(entry["shape"]), 8 + length + start)
                _check(tensor, end - start)
                if 8 + length + end > size or start < 0:
                    raise BadCheckpoint(str(path), Reason("checkpoint.ends_after", name=name))
                yield tensor
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadCheckpoint(str(path), Reason("checkpoint.header")) from None


def _check(tensor: StoredTensor, length: int) -> None:
    name, shape, kind = tensor.name, tensor.shape, tensor.type
    if kind not in ITEMS:
        problem = Reason("checkpoint.tensor_type", name=name, type=kind)
        raise BadCheckpoint(str(tensor.path), problem)
    if not shape or min(shape) < 1 or math.prod(shape) * item_bytes(kind) != length:
        raise BadCheckpoint(
            str(tensor.path), Reason("checkpoint.tensor_length", name=name, shape=list(shape), length=length)
        )

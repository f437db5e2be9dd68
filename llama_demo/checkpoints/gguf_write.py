"""Writes GGUF files: whole or not at all, a slice of a tensor at a time.

Knows the container and the types; what the tensors mean is the caller's business.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType, quants
from numpy.typing import NDArray

from llama_demo.checkpoints.gguf_read import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    FLOAT32,
    INT32,
    MAGIC,
    STRING,
    UINT32,
    Scalar,
    Value,
    padded,
)
from llama_demo.checkpoints.whole import replacing

Quantization = Literal["f32", "f16", "q8_0", "q4_0"]
Report = Callable[[int, int], None]
"""Told the bytes written and the bytes in all, many times a second."""

TENSOR_TYPES: dict[Quantization, GGMLQuantizationType] = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
}
FILE_TYPES: dict[Quantization, int] = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
QUANTIZATION_VERSION = 2
_VERSION = 3


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to be written: `chunks` gives its bytes, already in its type, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    chunks: Callable[[], Iterator[bytes]]

    @property
    def bytes(self) -> int:
        block_items, block_bytes = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // int(block_items) * int(block_bytes)


def type_for(shape: Sequence[int], to: Quantization) -> GGMLQuantizationType:
    """The type of a tensor of `shape` in a file of type `to`: vectors stay exact, and a row that no block divides is
    kept in half precision."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    kind = TENSOR_TYPES[to]
    return GGMLQuantizationType.F16 if shape[-1] % GGML_QUANT_SIZES[kind][0] else kind


def encode_fields(fields: Mapping[str, Value]) -> bytes:
    """Metadata as they stand in the file. Whole numbers are unsigned on their own and signed in arrays, as GGUF's own
    keys have them."""
    return b"".join(encode_field(name, value) for name, value in fields.items())


def encode_field(name: str, value: Value) -> bytes:
    """One metadata field as it stands in the file."""
    if isinstance(value, list):
        kind, _ = _encode(value[0])
        kind = INT32 if kind == UINT32 else kind
        form = {INT32: "i", FLOAT32: "f", BOOL: "?"}.get(kind)
        items = b"".join(map(_text, map(str, value))) if form is None else struct.pack(f"<{len(value)}{form}", *value)
        return _text(name) + struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    kind, encoded = _encode(value)
    return _text(name) + struct.pack("<I", kind) + encoded


def _encode(value: Scalar) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return UINT32, struct.pack("<I", value)
    if isinstance(value, float):
        return FLOAT32, struct.pack("<f", value)
    return STRING, _text(value)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def write_container(
    target: Path,
    fields: bytes,
    field_count: int,
    tensors: Sequence[PlannedTensor],
    *,
    alignment: int = DEFAULT_ALIGNMENT,
    report: Report | None = None,
) -> None:
    """Writes a GGUF file of already encoded `fields`. Raises `DiskFull` before it writes where there is no room."""
    infos, offset = b"", 0
    for tensor in tensors:
        shape = tuple(reversed(tensor.shape))
        infos += _text(tensor.name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.type, offset)
        offset = padded(offset + tensor.bytes, alignment)
    head = MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), field_count) + fields + infos
    total = padded(len(head), alignment) + offset
    with replacing(target, total) as file:
        file.write(head)
        for tensor in tensors:
            _pad(file, alignment)
            for chunk in tensor.chunks():
                file.write(chunk)
                if report is not None:
                    report(file.tell(), total)
        _pad(file, alignment)


def quantize(values: NDArray[np.float32], kind: GGMLQuantizationType) -> bytes:
    """float32 [rows, row] as the bytes of `kind`."""
    with np.errstate(all="ignore"):
        raw: bytes = quants.quantize(np.ascontiguousarray(values), kind).tobytes()
    return raw


def _pad(file: BinaryIO, alignment: int) -> None:
    position = file.tell()
    file.write(bytes(padded(position, alignment) - position))

"""Reads a GGUF file's header and tensors, trusting nothing in it.

Every declared length is held against the bytes that are really there before anything is allocated, so a hostile or a
damaged file costs a clear error and little else. It knows the container, not what a tokenizer or an engine makes of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from numpy.typing import NDArray

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
"""The numbers that the format gives to the types of metadata values."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_MOST_METADATA_BYTES = 64 * 2**20
_MOST_ARRAY_ITEMS = 4 * 2**20
_MOST_TENSORS = 100_000
_MOST_FIELDS = 10_000
_MOST_NAME_BYTES = 4096
_SLICE_ITEMS = 2**22

Scalar = int | float | bool | str
Value = Scalar | list[Scalar]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies. `shape` has the fastest dimension last, as in numpy and torch."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    """From the file's start, in bytes."""
    bytes: int

    @property
    def items(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Container:
    """Everything before the tensor data. `fields` has the metadata in the file's order."""

    path: Path
    version: int
    fields: dict[str, Value]
    field_types: dict[str, int]
    """The format's number for each value's type."""
    alignment: int
    tensors: tuple[Tensor, ...]
    bytes: int
    """The whole file's."""
    fields_span: tuple[int, int]
    """Where the metadata lie in the file."""
    value_offsets: dict[str, int]
    """Where each metadata value lies in the file."""


class Metadata:
    """Metadata, each asked for as the type it must have. Raises `BadCheckpoint`, naming `path`, where it is another."""

    def __init__(self, path: Path, fields: Mapping[str, Value]) -> None:
        self._path, self._fields = path, fields

    def bad(self, problem: Reason) -> BadCheckpoint:
        return BadCheckpoint(str(self._path), problem)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.bad(Reason("checkpoint.not_text", name=name))
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.bad(Reason("checkpoint.not_flag", name=name))
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise self.bad(Reason("checkpoint.not_count", name=name, value=str(value)[:40]))
        return value

    def token_id(self, name: str, vocabulary: int) -> int | None:
        """A token's number below `vocabulary`, or None where the file names none."""
        value = self._fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.bad(Reason("checkpoint.not_token", name=name))
        return value if value is not None and 0 <= value < vocabulary else None

    def texts(self, name: str) -> list[str]:
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.bad(Reason("checkpoint.not_texts", name=name))
        return [str(item) for item in value]

    def numbers(self, name: str, length: int, default: float | None = None) -> list[float]:
        """`length` numbers; all of them `default` where there are none."""
        value = self._get(name, None if default is None else [default] * length)
        if not isinstance(value, list) or len(value) != length or any(isinstance(item, str) for item in value):
            raise self.bad(Reason("checkpoint.not_numbers", name=name, length=length))
        return [float(item) for item in value]

    def _get(self, name: str, default: Value | None = None) -> Value:
        value = self._fields.get(name, default)
        if value is None:
            raise self.bad(Reason("checkpoint.metadata_lack", name=name))
        return value


def read_container(path: Path) -> Container:
    """Raises `BadCheckpoint` for anything that is not a whole GGUF file of a known version."""
    try:
        with path.open("rb") as file:
            return _read(_Cursor(path, file))
    except OSError as error:
        raise BadCheckpoint(str(path), Reason("checkpoint.unreadable", said=error.strerror or error)) from error


def tensor_bytes(file: BinaryIO, path: Path, tensor: Tensor) -> Iterator[bytes]:
    """The tensor's bytes as they lie in the file, some whole rows at a time: never more than a few million values.

    Raises `BadCheckpoint` for a file that was cut short meanwhile.
    """
    row_items = tensor.shape[-1]
    rows_left = tensor.items // row_items
    row_bytes, rows_at_once = tensor.bytes // rows_left, max(1, _SLICE_ITEMS // row_items)
    file.seek(tensor.offset)
    while rows_left:
        rows = min(rows_left, rows_at_once)
        raw = file.read(rows * row_bytes)
        if len(raw) != rows * row_bytes:
            raise BadCheckpoint(str(path), Reason("checkpoint.ends_inside", name=tensor.name))
        yield raw
        rows_left -= rows


def tensor_slices(file: BinaryIO, path: Path, tensor: Tensor) -> Iterator[NDArray[np.float32]]:
    """The tensor's values as float32 [rows, row], a few million at a time.

    Raises `BadCheckpoint` for a type that has no known way back to numbers, and for a file cut short meanwhile.
    """
    row_bytes = tensor.bytes // (tensor.items // tensor.shape[-1])
    for raw in tensor_bytes(file, path, tensor):
        yield dequantize(path, np.frombuffer(raw, np.uint8).reshape(-1, row_bytes), tensor.type)


def dequantize(path: Path, raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """`raw` [rows, bytes] as float32 [rows, row]. Raises `BadCheckpoint` for a type without a way back to numbers."""
    try:
        with np.errstate(all="ignore"):
            values: NDArray[np.float32] = quants.dequantize(raw, kind)
    except NotImplementedError as error:
        raise BadCheckpoint(str(path), Reason("checkpoint.types", type=kind.name)) from error
    return values


class _Cursor:
    """Reads forward, never past the file's end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self.position = 0

    def bad(self, problem: Reason) -> BadCheckpoint:
        return BadCheckpoint(str(self.path), problem)

    def take(self, count: int) -> bytes:
        if count > self.size - self.position:
            raise self.bad(Reason("checkpoint.cut_in_header"))
        self.position += count
        raw = self._file.read(count)
        if len(raw) != count:
            raise self.bad(Reason("checkpoint.cut_meanwhile"))
        return raw

    def peek(self, count: int) -> bytes:
        head = self._file.read(count)
        self._file.seek(self.position)
        return head

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self, most_bytes: int) -> str:
        length = self.number("<Q")
        if length > most_bytes:
            raise self.bad(Reason("checkpoint.text_claims", length=length))
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(Reason("checkpoint.no_utf8")) from None

    def texts(self, count: int) -> list[Scalar]:
        """As `text`, for the hundred thousand of a vocabulary: the bounds are the same, the calls fewer."""
        read, left = self._file.read, min(self.size - self.position, _MOST_METADATA_BYTES)
        end = self.position + left
        items: list[bytes] = []
        for _ in range(count):
            length = int.from_bytes(read(8), "little")
            left -= 8 + length
            if left < 0:
                raise self.bad(Reason("checkpoint.texts_beyond"))
            items.append(read(length))
        self.position = end - left
        try:
            return [item.decode("utf-8") for item in items]
        except UnicodeDecodeError:
            raise self.bad(Reason("checkpoint.no_utf8")) from None


def _read(cursor: _Cursor) -> Container:
    _check_magic(cursor)
    version = cursor.number("<I")
    if version not in VERSIONS:
        if version & 0xFFFF == 0:
            raise cursor.bad(Reason("checkpoint.big_endian", first=VERSIONS[0], last=VERSIONS[1]))
        raise cursor.bad(Reason("checkpoint.version", version=version, first=VERSIONS[0], last=VERSIONS[1]))
    tensor_count, field_count = cursor.number("<Q"), cursor.number("<Q")
    if tensor_count > _MOST_TENSORS or field_count > _MOST_FIELDS:
        raise cursor.bad(Reason("checkpoint.claims", tensors=tensor_count, fields=field_count))
    start = cursor.position
    fields: dict[str, Value] = {}
    types: dict[str, int] = {}
    offsets: dict[str, int] = {}
    for _ in range(field_count):
        name = cursor.text(_MOST_NAME_BYTES)
        types[name] = cursor.number("<I")
        offsets[name] = cursor.position
        if name in fields:
            raise cursor.bad(Reason("checkpoint.field_twice", name=name))
        fields[name] = _value(cursor, types[name])
        if cursor.position - start > _MOST_METADATA_BYTES:
            raise cursor.bad(Reason("checkpoint.metadata_long", most=_MOST_METADATA_BYTES))
    end = cursor.position
    alignment = _alignment(cursor, fields)
    tensors = _tensors(cursor, tensor_count, alignment)
    return Container(cursor.path, version, fields, types, alignment, tensors, cursor.size, (start, end), offsets)


def _check_magic(cursor: _Cursor) -> None:
    if cursor.size == 0:
        raise cursor.bad(Reason("checkpoint.empty"))
    head = cursor.peek(512)
    if head[:4] != MAGIC:
        text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if text.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise cursor.bad(Reason("checkpoint.web_page"))
        if text.startswith(b"version https://git-lfs"):
            raise cursor.bad(Reason("checkpoint.lfs"))
        raise cursor.bad(Reason("checkpoint.no_gguf"))
    cursor.take(len(MAGIC))


def _value(cursor: _Cursor, kind: int) -> Value:
    if kind != ARRAY:
        return _scalar(cursor, kind)
    item_kind, count = cursor.number("<I"), cursor.number("<Q")
    if count > _MOST_ARRAY_ITEMS:
        raise cursor.bad(Reason("checkpoint.array_claims", count=count))
    if item_kind == STRING:
        return cursor.texts(count)
    form = _SCALARS.get(item_kind)
    if form is None:
        raise cursor.bad(Reason("checkpoint.array_type", type=item_kind))
    return list(struct.unpack(f"<{count}{form[1]}", cursor.take(count * struct.calcsize(form))))


def _scalar(cursor: _Cursor, kind: int) -> Scalar:
    if kind == STRING:
        return cursor.text(_MOST_METADATA_BYTES)
    form = _SCALARS.get(kind)
    if form is None:
        raise cursor.bad(Reason("checkpoint.value_type", type=kind))
    value: Scalar = struct.unpack(form, cursor.take(struct.calcsize(form)))[0]
    return value


def _alignment(cursor: _Cursor, fields: dict[str, Value]) -> int:
    alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise cursor.bad(Reason("checkpoint.alignment", value=repr(alignment)))
    return alignment


def _tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise cursor.bad(Reason("checkpoint.tensor_twice", name=tensor.name))
        tensors[tensor.name] = tensor
    data_start = padded(cursor.position, alignment)
    placed = []
    for tensor in tensors.values():
        end = data_start + tensor.offset + tensor.bytes
        if end > cursor.size:
            raise cursor.bad(Reason("checkpoint.tensor_end", size=cursor.size, name=tensor.name, end=end))
        placed.append(Tensor(tensor.name, tensor.shape, tensor.type, data_start + tensor.offset, tensor.bytes))
    return tuple(placed)


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.text(_MOST_NAME_BYTES)
    dimensions = cursor.number("<I")
    if not 1 <= dimensions <= 4:
        raise cursor.bad(Reason("checkpoint.dimensions", name=name, count=dimensions))
    shape = tuple(reversed([cursor.number("<Q") for _ in range(dimensions)]))
    number, offset = cursor.number("<I"), cursor.number("<Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise cursor.bad(Reason("checkpoint.tensor_kind", name=name, type=number)) from None
    block_items, block_bytes = GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block_items:
        raise cursor.bad(Reason("checkpoint.damaged_shape", name=name, shape=list(shape)))
    return Tensor(name, shape, kind, offset, math.prod(shape) // block_items * block_bytes)


def padded(position: int, alignment: int) -> int:
    """The next multiple of `alignment` at or after `position`."""
    return -(-position // alignment) * alignment

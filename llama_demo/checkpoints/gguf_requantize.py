"""A GGUF file written again in another type, for an engine that would not compute its own type faithfully.

Everything but the matrices' type is kept. `requantize` can be named to another process: it keeps no state.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType

from llama_demo.checkpoints.gguf_read import UINT32, Container, Tensor, read_container, tensor_bytes, tensor_slices
from llama_demo.checkpoints.gguf_write import (
    FILE_TYPES,
    QUANTIZATION_VERSION,
    PlannedTensor,
    Quantization,
    Report,
    encode_field,
    quantize,
    type_for,
    write_container,
)
from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

_KEPT_TYPES = frozenset({GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q4_0})


def requantize(source: Path, target: Path, *, to: Quantization = "q8_0", report: Report | None = None) -> None:
    """Writes `source` again with its matrices as `to`; those already in Q8_0, Q6_K or Q4_0 keep their type and
    values.

    Metadata and tokenizer are kept as they are. `target` appears whole or not at all. Needs memory for a few slices
    of a tensor, whatever the file's size. Raises `BadCheckpoint`, `DiskFull`.
    """
    container = read_container(source)
    with source.open("rb") as file:
        tensors = [_planned(file, container, tensor, to) for tensor in container.tensors]
        fields, count = _updated_fields(file, container, to)
        write_container(target, fields, count, tensors, alignment=container.alignment, report=report)


def _planned(file: BinaryIO, container: Container, tensor: Tensor, to: Quantization) -> PlannedTensor:
    kind = tensor.type if tensor.type in _KEPT_TYPES else type_for(tensor.shape, to)

    def chunks() -> Iterator[bytes]:
        if kind == tensor.type:
            yield from tensor_bytes(file, container.path, tensor)
            return
        for values in tensor_slices(file, container.path, tensor):
            if not np.isfinite(values).all():
                raise BadCheckpoint(str(container.path), Reason("checkpoint.no_number", name=tensor.name))
            yield quantize(values, kind)

    return PlannedTensor(tensor.name, tensor.shape, kind, chunks)


def _updated_fields(file: BinaryIO, container: Container, to: Quantization) -> tuple[bytes, int]:
    """The metadata's bytes with the file's type put right, and how many fields they are."""
    start, end = container.fields_span
    file.seek(start)
    raw = bytearray(file.read(end - start))
    count = len(container.fields)
    for name, value in (("general.file_type", FILE_TYPES[to]), ("general.quantization_version", QUANTIZATION_VERSION)):
        if name not in container.fields:
            raw += encode_field(name, value)
            count += 1
        elif container.field_types[name] == UINT32:
            struct.pack_into("<I", raw, container.value_offsets[name] - start, value)
        else:
            raise BadCheckpoint(str(container.path), Reason("checkpoint.not_number", name=name))
    return bytes(raw), count

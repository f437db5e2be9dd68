"""GGUF files with K-quants, whose blocks the gguf package reads and does not make: by their published layout.

Simple rounding, no search for the best scales: what matters is that the file is one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray

from llama_demo.checkpoints.gguf_read import Tensor, read_container, tensor_bytes, tensor_slices
from llama_demo.checkpoints.gguf_write import PlannedTensor, quantize, write_container

BLOCK = 256
Bytes = NDArray[np.uint8]


def q4_k(values: NDArray[np.float32]) -> Bytes:
    """Eight parts of 32 numbers, each with a scale and a minimum of 6 bits, of a common scale each; 4 bits a number."""
    parts = values.reshape(-1, 8, 32)
    least = np.maximum(-parts.min(-1), 0)
    wide = (parts.max(-1) + least) / 15
    d, dmin = ((each.max(-1, keepdims=True) / 63).astype(np.float16) for each in (wide, least))
    scales, minima = (_rounded(each, by, 63) for each, by in ((wide, d), (least, dmin)))
    step, low = (by.astype(np.float32) * each for by, each in ((d, scales), (dmin, minima)))
    numbers = _rounded(parts + low[..., None], step[..., None], 15)
    packed = [
        scales[:, :4] | (scales[:, 4:] >> 4) << 6,
        minima[:, :4] | (minima[:, 4:] >> 4) << 6,
        (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4,
    ]
    nibbles = (numbers[:, ::2] | numbers[:, 1::2] << 4).reshape(-1, 128)
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), *packed, nibbles], axis=1)


def q6_k(values: NDArray[np.float32]) -> Bytes:
    """Sixteen parts of 16 numbers, each with a scale of 8 bits of a common one; 6 bits a number, around zero."""
    parts = values.reshape(-1, 16, 16)
    wide = np.abs(parts).max(-1) / 31
    d = (wide.max(-1, keepdims=True) / 127).astype(np.float16)
    scales = _rounded(wide, d, 127)
    step = d.astype(np.float32) * scales
    numbers = (np.clip(np.rint(_divided(parts, step[..., None])), -32, 31) + 32).astype(np.uint8)
    halves = numbers.reshape(-1, 2, 4, 32)
    low = np.concatenate([halves[:, :, :2] & 15 | (halves[:, :, 2:] & 15) << 4], axis=2).reshape(-1, 128)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce((halves >> 4) << shifts, axis=2).reshape(-1, 64)
    return np.concatenate([low, high, scales, d.view(np.uint8)], axis=1)


def _divided(values: NDArray[np.float32], by: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.divide(values, by, out=np.zeros_like(values), where=by != 0)


def _rounded(values: NDArray[np.float32], by: NDArray[np.floating], most: int) -> Bytes:
    whole = np.rint(_divided(values, np.broadcast_to(by, values.shape).astype(np.float32)))
    return np.clip(whole, 0, most).astype(np.uint8)


FILE_TYPES = {
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_S,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
}
ENCODERS: Mapping[str, Callable[[NDArray[np.float32]], bytes]] = {
    "Q4_0": lambda values: quantize(values, GGMLQuantizationType.Q4_0),
    "Q4_1": lambda values: quantize(values, GGMLQuantizationType.Q4_1),
    "Q4_K": lambda values: q4_k(values).tobytes(),
    "Q6_K": lambda values: q6_k(values).tobytes(),
}


def write_as(kind: str, source: Path, target: Path, head: str = "") -> None:
    """The file `source`, whose matrices are of a type without loss, with them as `kind`; the output matrix as `head`
    where that is other."""
    container = read_container(source)
    with source.open("rb") as file:

        def planned(tensor: Tensor) -> PlannedTensor:
            to = head if head and tensor.name == "output.weight" else kind

            def chunks() -> Iterator[bytes]:
                if len(tensor.shape) < 2:
                    yield from tensor_bytes(file, source, tensor)
                else:
                    yield from map(ENCODERS[to], tensor_slices(file, source, tensor))

            made = tensor.type if len(tensor.shape) < 2 else GGMLQuantizationType[to]
            return PlannedTensor(tensor.name, tensor.shape, made, chunks)

        start, end = container.fields_span
        file.seek(start)
        fields = bytearray(file.read(end - start))
        struct.pack_into("<I", fields, container.value_offsets["general.file_type"] - start, FILE_TYPES[kind])
        write_container(target, bytes(fields), len(container.fields), [planned(tensor) for tensor in container.tensors])

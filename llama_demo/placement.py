"""What a model needs, in bytes, in each form it can take: arithmetic on its shape, before anything is downloaded.

Where there is room for it is `placement_plan`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Way = Literal["batching", "split", "openvino", "remote"]
"""transformers with continuous batching on one device; the layers shared out over several GPUs, one reply at a time;
OpenVINO on the CPU."""

OPENVINO_HEAD_ROOM_BYTES = 220_000_000
"""What OpenVINO's process takes beside weights and cache: its libraries, the compiled graph, the work buffers."""
TORCH_HEAD_ROOM_BYTES = 420_000_000
"""What transformers takes on the CPU beside them, with torch's and its own libraries."""
TORCH_LIBRARY_BYTES = 380_000_000
"""What these are of it: there once for all models, and for as long as the process is."""
GPU_HEAD_ROOM_BYTES = 1_200_000_000
"""What CUDA's own context, its libraries' work space and a step's activations take on each GPU."""

PAGE_TOKENS = 32
"""Continuous batching hands out its cache in pages of so many tokens: half of one is what a request wastes."""

FAST_CACHE_BYTES = 1.25
"""A number of the fast profile's KV cache on the CPU: one byte, and its share of scales and zero points, rounded up."""

OPENVINO_BYTES: Mapping[str, float] = {"f16": 2 + 4, "q8_0": 2 * 34 / 32, "q6_k": 2.5, "q4_0": 2 * 18 / 32}
"""A number of a matrix in each type of a file, as OpenVINO has it in memory: as it was read, and once more in the order
that it multiplies in, which for 16 bits is in 32. The others share a scale among 32, six bits become eight."""
OPENVINO_REPRODUCIBLE_BYTES: Mapping[str, float] = {**OPENVINO_BYTES, "f16": 2 + 2 + 4}
"""The same where it computes in 32 bits: 16 bits are then held once more."""
GPU_BYTES: Mapping[str, float] = {"32-bit": 4.0, "16-bit": 2.0, "8-bit": 1.0, "4-bit": 0.5 + 4 / 64}
"""A number of a layer's matrices; in 4 bits, 64 share a float32 scale. The embedding and the head stay in 16 bits."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the arithmetic needs of a model. `embedding_parameters` counts the embedding and the head together, which no
    quantisation touches on a GPU; `held_bytes` is what the weights take where their form is not to be chosen."""

    parameters: int
    embedding_parameters: int
    layers: int
    kv_heads: int
    head_size: int
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """A model in one type, for one kind of device. The embedding comes before the first layer and the head after the
    last, each of `end_bytes`; `cache_bytes` are a token's keys and values in one layer. `read_bytes` are the file's
    pages that are mapped while its numbers are cast to another type, and let go once they are."""

    way: Way
    precision: str
    on_gpu: bool
    layers: int
    layer_bytes: float
    end_bytes: float
    cache_bytes: float
    read_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        return int(self.layers * self.layer_bytes + 2 * self.end_bytes)

    @property
    def head_room_bytes(self) -> int:
        if self.on_gpu:
            return GPU_HEAD_ROOM_BYTES
        return OPENVINO_HEAD_ROOM_BYTES if self.way == "openvino" else TORCH_HEAD_ROOM_BYTES

    @property
    def kept_bytes(self) -> int:
        """Of the head-room, what serves all such models, and stays when they go."""
        return TORCH_LIBRARY_BYTES if self.way == "batching" and not self.on_gpu else 0

    def context_bytes(self, context_tokens: int) -> int:
        """The whole cache of one full conversation."""
        return int(self.layers * self.cache_bytes * context_tokens)

    @property
    def spare_bytes(self) -> int:
        """The page of its cache that continuous batching, here and OpenVINO's, keeps free."""
        return 0 if self.way == "split" else self.context_bytes(PAGE_TOKENS)


def kv_bytes_per_token(model: Model, bytes_each: float) -> float:
    """2 x layers x KV heads x head size x bytes: a key and a value for every layer and KV head."""
    return 2 * model.layers * model.kv_heads * model.head_size * bytes_each


def gpu_form(model: Model, precision: str) -> Form:
    """For transformers on GPUs, in one of `GPU_BYTES`."""
    wide = 4.0 if precision == "32-bit" else 2.0
    return _form(model, ("batching", precision, True), (GPU_BYTES[precision], wide, wide))


def cpu_form(model: Model, way: Way, precision: str, cache_bytes_each: float) -> Form:
    """For the CPU: as the weights are held, or else in one of `OPENVINO_BYTES`."""
    each = model.held_bytes / model.parameters if model.held_bytes else OPENVINO_BYTES[precision]
    return _form(model, (way, precision, False), (each, each, cache_bytes_each))


def _form(model: Model, kind: tuple[Way, str, bool], bytes_each: tuple[float, float, float]) -> Form:
    """`bytes_each` number of a layer's matrices, of the embedding and the head, and of the cache."""
    inner, ends, cache = bytes_each
    return Form(
        *kind,
        layers=model.layers,
        layer_bytes=(model.parameters - model.embedding_parameters) / model.layers * inner,
        end_bytes=model.embedding_parameters * ends / 2,
        cache_bytes=kv_bytes_per_token(model, cache) / model.layers,
    )

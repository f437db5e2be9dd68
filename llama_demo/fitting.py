"""What a model needs on a device beside what is there, in numbers, and what would help where that is not enough.

Pure arithmetic on plain values, before anything is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llama_demo.placement import BYTES_EACH, HEAD_ROOM_BYTES, MINIMUM_CONTEXTS, Shape, kv_bytes_per_token
from llama_demo.placement_plan import CPU_CACHE_BYTES, GPU_BYTES, GPU_CACHE_BYTES, GPU_HEAD_ROOM_BYTES

SMALLEST_CONTEXT_TOKENS = 512
"""A shorter conversation is not worth proposing."""
_STEP_TOKENS = 128
GPU_SIZES_GB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 160, 192, 320, 640)
"""What GPUs have, the last ones as several of one machine."""
GPU_SHARE = 0.93
"""Of a GPU's memory that is free on an idle machine and counted in decimal gigabytes."""


@dataclass(frozen=True, slots=True)
class Help:
    """One way to make room. `bytes` is what the model then needs; `tokens` a context that fits; `gpu_gb` a card."""

    kind: Literal["quantize", "context", "gpu", "gpu_4_bits", "remote"]
    bytes: int = 0
    tokens: int = 0
    gpu_gb: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes of a device: with a cache for `conversations` of `context_tokens` each, side by side."""

    device: str
    weight_bytes: int
    cache_bytes: int
    head_room_bytes: int
    context_tokens: int
    conversations: int
    has_bytes: int
    helps: tuple[Help, ...] = ()

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.head_room_bytes


def least(shape: Shape, device: str, has_bytes: int, context_tokens: int, *, bytes_each: float, on_gpu: bool) -> Needs:
    """The least that a model is started with: the cache of `MINIMUM_CONTEXTS` conversations."""
    cache = int(MINIMUM_CONTEXTS * kv_bytes_per_token(shape, bytes_each) * context_tokens)
    head_room = GPU_HEAD_ROOM_BYTES if on_gpu else HEAD_ROOM_BYTES
    return Needs(device, shape.weight_bytes, cache, head_room, context_tokens, MINIMUM_CONTEXTS, has_bytes)


def helps(needs: Needs, shape: Shape, parameters: int, *, smallest: bool, bytes_each: float) -> Iterator[Help]:
    """What would make `needs` fit, the cheapest first. `smallest`: its weights are in 4 bits already."""
    if not smallest:
        weights = int(parameters * BYTES_EACH["q4_0"])
        cache = int(MINIMUM_CONTEXTS * kv_bytes_per_token(shape, CPU_CACHE_BYTES) * needs.context_tokens)
        if (needed := weights + cache + HEAD_ROOM_BYTES) <= needs.has_bytes:
            yield Help("quantize", bytes=needed)
    room = needs.has_bytes - needs.weight_bytes - needs.head_room_bytes
    tokens = int(room / (MINIMUM_CONTEXTS * kv_bytes_per_token(shape, bytes_each))) // _STEP_TOKENS * _STEP_TOKENS
    if SMALLEST_CONTEXT_TOKENS <= tokens < needs.context_tokens:
        yield Help("context", tokens=tokens)
    cache = int(MINIMUM_CONTEXTS * kv_bytes_per_token(shape, GPU_CACHE_BYTES) * needs.context_tokens)
    for kind, precision in (("gpu_4_bits", "4 bits"), ("gpu", "16 bits")):
        needed = int(parameters * GPU_BYTES[precision]) + cache + GPU_HEAD_ROOM_BYTES
        if (card := gpu_for(needed)) is not None:
            yield Help("gpu" if kind == "gpu" else "gpu_4_bits", bytes=needed, gpu_gb=card)
    yield Help("remote")


def gpu_for(needed_bytes: int) -> int | None:
    """The smallest usual card, in GB, that has `needed_bytes` for a model; None where there is none."""
    wanted = math.ceil(needed_bytes / 1e9 / GPU_SHARE)
    return next((size for size in GPU_SIZES_GB if size >= wanted), None)

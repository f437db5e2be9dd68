"""What a model needs on a device beside what is there, in numbers, and what would help where that is not enough.

Pure arithmetic on plain values, before anything is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from llama_demo.placement import FAST_CACHE_BYTES, Form, Model, cpu_form, gpu_form

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
    """What a model takes of a device: with a cache for `conversations` of `context_tokens` each, side by side.
    `peak_bytes` is the most it takes for a moment, 0 where that is no more. The head-room's `kept_bytes` serve all such
    models, and stay when they go."""

    device: str
    weight_bytes: int
    cache_bytes: int
    head_room_bytes: int
    context_tokens: int
    conversations: int
    has_bytes: int
    helps: tuple[Help, ...] = ()
    peak_bytes: int = 0
    kept_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.head_room_bytes


def least(form: Form, device: str, has_bytes: int, context_tokens: int) -> Needs:
    """The least that a model is started with: the cache of one conversation."""
    cache = form.context_bytes(context_tokens) + form.spare_bytes
    return Needs(device, form.weight_bytes, cache, form.head_room_bytes, context_tokens, 1, has_bytes)


def helps(needs: Needs, form: Form, model: Model) -> Iterator[Help]:
    """What would make `needs`, those of `form`, fit, the cheapest first."""

    def needed(other: Form) -> int:
        return least(other, needs.device, needs.has_bytes, needs.context_tokens).bytes

    smallest = cpu_form(replace(model, held_bytes=0), "openvino", "q4_0", FAST_CACHE_BYTES)
    if smallest.weight_bytes < form.weight_bytes and needed(smallest) <= needs.has_bytes:
        yield Help("quantize", bytes=needed(smallest))
    room = needs.has_bytes - needs.weight_bytes - needs.head_room_bytes - form.spare_bytes
    tokens = int(room / (form.layers * form.cache_bytes)) // _STEP_TOKENS * _STEP_TOKENS
    if SMALLEST_CONTEXT_TOKENS <= tokens < needs.context_tokens:
        yield Help("context", tokens=tokens)
    four, sixteen = (needed(gpu_form(model, precision)) for precision in ("4-bit", "16-bit"))
    if (card := gpu_for(four)) is not None:
        yield Help("gpu_4_bits", bytes=four, gpu_gb=card)
    if (card := gpu_for(sixteen)) is not None:
        yield Help("gpu", bytes=sixteen, gpu_gb=card)
    yield Help("remote")


def gpu_for(needed_bytes: int) -> int | None:
    """The smallest usual card, in GB, that has `needed_bytes` for a model; None where there is none."""
    wanted = math.ceil(needed_bytes / 1e9 / GPU_SHARE)
    return next((size for size in GPU_SIZES_GB if size >= wanted), None)

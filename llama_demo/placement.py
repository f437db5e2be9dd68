"""What a model needs, in bytes, from its shape alone: pure arithmetic, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llama_demo.errors import DoesNotFit

HEAD_ROOM_BYTES = 350_000_000
"""What an engine's process takes beside weights and cache: its libraries, the compiled graph, the work buffers."""

BYTES_EACH: Mapping[str, float] = {"f32": 4, "f16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""A number of a matrix in each type; the quantised ones share a scale among 32."""

MINIMUM_CONTEXTS = 2
"""A cache that cannot hold so many full conversations side by side is not worth starting."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the arithmetic needs of a model."""

    weight_bytes: int
    layers: int
    kv_heads: int
    head_size: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model goes and what it takes there."""

    device: str
    weight_bytes: int
    cache_bytes: int
    head_room_bytes: int = HEAD_ROOM_BYTES

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.head_room_bytes


def kv_bytes_per_token(shape: Shape, bytes_each: float) -> float:
    """2 x layers x KV heads x head size x bytes: a key and a value for every layer and KV head."""
    return 2 * shape.layers * shape.kv_heads * shape.head_size * bytes_each


def place(
    name: str,
    shape: Shape,
    *,
    device: str,
    budget_bytes: int,
    context_tokens: int,
    contexts: int,
    bytes_each: float,
    head_room_bytes: int = HEAD_ROOM_BYTES,
) -> Placement:
    """Room for `contexts` full conversations where the budget has it, for fewer where it has not.

    Raises `DoesNotFit` where not even `MINIMUM_CONTEXTS` fit.
    """
    one = int(kv_bytes_per_token(shape, bytes_each) * context_tokens)
    least = Placement(device, shape.weight_bytes, MINIMUM_CONTEXTS * one, head_room_bytes)
    if least.bytes > budget_bytes:
        raise DoesNotFit(name, device, least.bytes, budget_bytes)
    room = budget_bytes - shape.weight_bytes - head_room_bytes
    return Placement(device, shape.weight_bytes, min(contexts * one, room), head_room_bytes)

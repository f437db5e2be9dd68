"""Where a model could run on this machine's devices, and at which precision: pure arithmetic on what they have free.

Nothing is downloaded or measured for it, so machines that are not there can be asked about as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llama_demo.devices import CPU, Device
from llama_demo.errors import DoesNotFit
from llama_demo.placement import BYTES_EACH, HEAD_ROOM_BYTES

Way = Literal["batching", "split", "openvino"]
"""Continuous batching on one GPU; the layers shared out over several, one reply at a time; OpenVINO on the CPU."""

GPU_HEAD_ROOM_BYTES = 1_200_000_000
"""What CUDA's own context, its libraries' work space and a step's activations take on each GPU."""
GPU_BYTES: Mapping[str, float] = {"16 bits": 2.0, "8 bits": 1.0, "4 bits": 0.5 + 4 / 64}
"""A number of a layer's matrices; in 4 bits, 64 share a float32 scale. The embedding and the head stay in 16 bits."""
CPU_TYPES = ("q8_0", "q4_0")
CPU_CACHE_BYTES = 1.25
"""A number of the KV cache on the CPU: one byte and its share of scales."""
GPU_CACHE_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Model:
    """`embedding_parameters` counts the embedding and the head together, which no quantisation touches on a GPU."""

    parameters: int
    embedding_parameters: int
    layers: int
    kv_heads: int
    head_size: int

    def layer_cache_bytes(self, context_tokens: int, bytes_each: float) -> float:
        """Keys and values of one layer for one full conversation."""
        return 2 * self.kv_heads * self.head_size * bytes_each * context_tokens

    def layer_bytes(self, bytes_each: float) -> float:
        return (self.parameters - self.embedding_parameters) / self.layers * bytes_each


@dataclass(frozen=True, slots=True)
class Share:
    """What one device is asked for."""

    device: str
    weight_bytes: int
    cache_bytes: int
    head_room_bytes: int

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.head_room_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a model here. `visitors` is how many full conversations the cache holds side by side."""

    way: Way
    precision: str
    shares: tuple[Share, ...]
    visitors: int

    @property
    def max_memory(self) -> dict[str, int]:
        """What accelerate may fill with weights on each device, so that the cache and the head-room stay free."""
        return {share.device: share.weight_bytes for share in self.shares}

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.shares)


def plan(name: str, model: Model, devices: Sequence[Device], *, context_tokens: int, visitors: int) -> Plan:
    """The best of `plans`. Raises `DoesNotFit` with what the least demanding way needs, and what its device has."""
    best = next(plans(model, devices, context_tokens=context_tokens, visitors=visitors), None)
    if best is None:
        raise _nearest(name, model, devices, context_tokens)
    return best


def plans(model: Model, devices: Sequence[Device], *, context_tokens: int, visitors: int) -> Iterator[Plan]:
    """Every way that fits, best first: a more exact type before a smaller one, one GPU before several, a GPU before
    the CPU. Where the caches of all `visitors` do not fit, those of fewer do."""
    gpus = [device for device in devices if device.name != CPU]
    for precision in GPU_BYTES:
        yield from _on_one(model, gpus, precision, context_tokens, visitors)
        yield from _over_several(model, gpus, precision, context_tokens)
    for device in devices:
        if device.name == CPU:
            for kind in CPU_TYPES:
                yield from _on_cpu(model, device, kind, context_tokens, visitors)


def _on_one(model: Model, gpus: Sequence[Device], precision: str, context_tokens: int, visitors: int) -> Iterator[Plan]:
    """On the fullest GPU that holds it with every visitor's cache, so that small models pack well; else on the one
    with most room."""
    weights = _weights(model, precision)
    one = model.layers * model.layer_cache_bytes(context_tokens, GPU_CACHE_BYTES)
    by_room = sorted(gpus, key=lambda gpu: gpu.free_bytes)
    for gpu in (*by_room, *reversed(by_room)):
        held = int((gpu.free_bytes - weights - GPU_HEAD_ROOM_BYTES) // one)
        if held >= visitors or (held >= 1 and gpu is by_room[-1]):
            count = min(held, visitors)
            yield Plan("batching", precision, (Share(gpu.name, weights, int(count * one), GPU_HEAD_ROOM_BYTES),), count)
            return


def _over_several(model: Model, gpus: Sequence[Device], precision: str, context_tokens: int) -> Iterator[Plan]:
    """Whole layers are put on one GPU after the other, roomiest first, the embedding before the first layer and the
    head after the last; the cache of a layer lies where the layer does."""
    if len(gpus) < 2:
        return
    layer, cache = model.layer_bytes(GPU_BYTES[precision]), model.layer_cache_bytes(context_tokens, GPU_CACHE_BYTES)
    end = model.embedding_parameters / 2 * 2.0
    left, shares = model.layers, list[Share]()
    for gpu in sorted(gpus, key=lambda gpu: -gpu.free_bytes):
        room = gpu.free_bytes - GPU_HEAD_ROOM_BYTES - (0 if shares else end)
        count = min(left, int(room // (layer + cache)))
        if count == left and room - count * (layer + cache) < end:
            count -= 1  # no room for the head beside the last layer: it goes on
        if count < 1:
            break
        left -= count
        ends = (0 if shares else end) + (0 if left else end)
        shares.append(Share(gpu.name, int(count * layer + ends), int(count * cache), GPU_HEAD_ROOM_BYTES))
        if not left:
            if len(shares) > 1:
                yield Plan("split", precision, tuple(shares), 1)
            return


def _on_cpu(model: Model, cpu: Device, kind: str, context_tokens: int, visitors: int) -> Iterator[Plan]:
    weights = int(model.parameters * BYTES_EACH[kind])
    one = model.layers * model.layer_cache_bytes(context_tokens, CPU_CACHE_BYTES)
    count = min(visitors, int((cpu.free_bytes - weights - HEAD_ROOM_BYTES) // one))
    if count >= 1:
        yield Plan("openvino", kind, (Share(CPU, weights, int(count * one), HEAD_ROOM_BYTES),), count)


def _weights(model: Model, precision: str) -> int:
    layers = (model.parameters - model.embedding_parameters) * GPU_BYTES[precision]
    return int(layers + model.embedding_parameters * 2.0)


def _nearest(name: str, model: Model, devices: Sequence[Device], context_tokens: int) -> DoesNotFit:
    """The device that lacks least for the smallest type."""
    needs = {True: 0, False: 0}
    for is_cpu, weights, head_room, each in (
        (True, int(model.parameters * BYTES_EACH[CPU_TYPES[-1]]), HEAD_ROOM_BYTES, CPU_CACHE_BYTES),
        (False, _weights(model, list(GPU_BYTES)[-1]), GPU_HEAD_ROOM_BYTES, GPU_CACHE_BYTES),
    ):
        needs[is_cpu] = weights + head_room + int(model.layers * model.layer_cache_bytes(context_tokens, each))
    device = min(devices, key=lambda device: needs[device.name == CPU] - device.free_bytes)
    return DoesNotFit(name, device.name, needs[device.name == CPU], device.free_bytes)

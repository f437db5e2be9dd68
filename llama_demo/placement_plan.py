"""Where a model could run on this machine's devices, and in which form: pure arithmetic on what they have.

Nothing is downloaded or measured for it, so machines that are not there can be asked about as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llama_demo.devices import CPU, Device
from llama_demo.errors import DoesNotFit
from llama_demo.placement import Form, Way


@dataclass(frozen=True, slots=True)
class Share:
    """What one device is asked for; `layers` is how many of the model's it holds. `read_bytes` come on top of weights
    and head-room while it loads, before there is a cache: clean pages of a file, which need not be free. `kept_bytes`
    are that part of the head-room that serves all such models, and stays when they go."""

    device: str
    weight_bytes: int
    cache_bytes: int
    head_room_bytes: int
    layers: int = 0
    read_bytes: int = 0
    kept_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.head_room_bytes

    @property
    def peak_bytes(self) -> int:
        return max(self.bytes, self.weight_bytes + self.head_room_bytes + self.read_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a model here. `visitors` is how many full conversations the cache holds side by side."""

    way: Way
    precision: str
    shares: tuple[Share, ...]
    visitors: int

    @property
    def device(self) -> str:
        """All its devices, by name."""
        return ", ".join(share.device for share in self.shares)

    @property
    def weight_bytes(self) -> int:
        return sum(share.weight_bytes for share in self.shares)

    @property
    def cache_bytes(self) -> int:
        return sum(share.cache_bytes for share in self.shares)

    @property
    def head_room_bytes(self) -> int:
        return sum(share.head_room_bytes for share in self.shares)

    @property
    def kept_bytes(self) -> int:
        return sum(share.kept_bytes for share in self.shares)

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.shares)

    @property
    def peak_bytes(self) -> int:
        """The most that it takes at any time, its load included."""
        return sum(share.peak_bytes for share in self.shares)


def plan(name: str, forms: Sequence[Form], devices: Sequence[Device], *, context_tokens: int, visitors: int) -> Plan:
    """The best of `plans`. Raises `DoesNotFit` with what the least demanding way needs, and what its device has."""
    best = next(plans(forms, devices, context_tokens=context_tokens, visitors=visitors), None)
    if best is None:
        raise _nearest(name, forms, devices, context_tokens)
    return best


def plans(forms: Sequence[Form], devices: Sequence[Device], *, context_tokens: int, visitors: int) -> Iterator[Plan]:
    """Every way that fits, best first: the forms in their order, on one GPU before several. Where the caches of all
    `visitors` do not fit, those of fewer do."""
    for form in forms:
        fitting = [device for device in devices if (device.name != CPU) == form.on_gpu]
        yield from _on_one(form, fitting, context_tokens, visitors)
        if form.on_gpu:
            yield from _over_several(form, fitting, context_tokens)


def _on_one(form: Form, devices: Sequence[Device], context_tokens: int, visitors: int) -> Iterator[Plan]:
    """The fullest device that holds it with every visitor's cache first, so that small models pack well; where none
    does, those that hold the most."""
    one = max(1, form.context_bytes(context_tokens))
    others = form.weight_bytes + form.head_room_bytes + form.spare_bytes
    held = {device.name: min(visitors, (device.free_bytes - others) // one) for device in devices}
    most = max(held.values(), default=0)
    for device in sorted(devices, key=lambda device: device.free_bytes):
        if most >= 1 and held[device.name] == most:
            cache = most * one + form.spare_bytes
            room, layers, read = form.head_room_bytes, form.layers, form.read_bytes
            share = Share(device.name, form.weight_bytes, cache, room, layers, read, form.kept_bytes)
            yield Plan(form.way, form.precision, (share,), most)


def _over_several(form: Form, gpus: Sequence[Device], context_tokens: int) -> Iterator[Plan]:
    """Whole layers are put on one GPU after the other, roomiest first, the embedding before the first layer and the
    head after the last; the cache of a layer lies where the layer does."""
    if len(gpus) < 2:
        return
    layer, cache, end = form.layer_bytes, form.cache_bytes * context_tokens, form.end_bytes
    left, shares = form.layers, list[Share]()
    for gpu in sorted(gpus, key=lambda gpu: -gpu.free_bytes):
        room = gpu.free_bytes - form.head_room_bytes - (0 if shares else end)
        count = min(left, int(room // (layer + cache)))
        if count == left and room - count * (layer + cache) < end:
            count -= 1  # no room for the head beside the last layer: it goes on
        if count < 1:
            break
        left -= count
        ends = (0 if shares else end) + (0 if left else end)
        shares.append(Share(gpu.name, int(count * layer + ends), int(count * cache), form.head_room_bytes, count))
        if not left:
            if len(shares) > 1:
                yield Plan("split", form.precision, tuple(shares), 1)
            return


def _nearest(name: str, forms: Sequence[Form], devices: Sequence[Device], context_tokens: int) -> DoesNotFit:
    """The device that lacks least, each for its smallest form."""
    lacking: list[tuple[int, int, Device]] = []
    for device in devices:
        needs = [
            form.weight_bytes + form.head_room_bytes + form.spare_bytes + form.context_bytes(context_tokens)
            for form in forms
            if (device.name != CPU) == form.on_gpu
        ]
        if needs:
            lacking.append((min(needs) - device.free_bytes, min(needs), device))
    _, needed, device = min(lacking, key=lambda row: row[0])
    return DoesNotFit(name, device.name, needed, device.free_bytes)

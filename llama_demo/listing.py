"""The models as people see them: where each could run and what it needs, its state, and who holds a device's memory.

It loads nothing and asks no network: what is on this machine's disk is looked up once for each model, and again when
told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llama_demo import hub
from llama_demo.catalog import Entry
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.devices import CPU
from llama_demo.entry_files import find_packaged, read_shape, runs_in_transformers, wanted_files
from llama_demo.errors import BadCheckpoint, DoesNotFit, LlamaDemoError
from llama_demo.fitting import Needs, helps, least
from llama_demo.loading import ANALYSIS, FAST_CACHE_BYTES, LoadedModel, Loader
from llama_demo.placement import BYTES_EACH, Placement, Shape, kv_bytes_per_token
from llama_demo.placement_plan import GPU_CACHE_BYTES
from llama_demo.registry import Registry
from llama_demo.settings import Settings
from llama_demo.values import LoadProgress, ModelState

Where = Literal["here", "download", "access", "too_large", "broken"]
"""Runs here and now; runs here once it is downloaded; its repository lets nobody in unasked; more than any device has;
or its files are no model."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One model as people see it. `bytes` is what it takes in memory, or would; `needs` is how that adds up, None where
    its files do not say."""

    name: str
    title: str
    good_for: str
    repo: str
    parameters: int
    format: str
    access: str
    licence: str
    link: str
    state: ModelState
    device: str
    bytes: int
    fits: bool
    progress: LoadProgress | None
    error: BaseException | None
    where: Where
    needs: Needs | None
    leases: int = 0
    pinned: bool = False

    def public(self) -> dict[str, object]:
        """What `/models` gives: the fields that users' programs rely on."""
        names = ("name", "repo", "parameters", "format", "access", "state", "device", "bytes", "fits")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Holder:
    """What one model holds of a device; `is_analysis` for the second graph, which gives scores and features."""

    name: str
    title: str
    bytes: int
    leases: int
    state: ModelState
    is_analysis: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What models take of a device, of what they may take, and which of them, as they were loaded."""

    device: str
    used_bytes: int
    budget_bytes: int
    holders: tuple[Holder, ...] = ()


class Listing:
    """`budgets` are bytes a device."""

    def __init__(
        self, settings: Settings, loader: Loader, registry: Registry[LoadedModel], budgets: Mapping[str, int]
    ) -> None:
        self._settings, self._loader, self._registry, self._budgets = settings, loader, registry, budgets
        self._on_disk: dict[str, bool] = {}
        self._shapes: dict[tuple[str, Quantization], Shape] = {}

    def look_again(self, name: str) -> None:
        """What is on the disk may have changed for `name`."""
        self._on_disk.pop(name, None)

    def summary(self, entry: Entry) -> ModelSummary:
        status = self._registry.status(entry.name)
        error: BaseException | None = status.error
        needs: Needs | None = None
        fits, device, size = False, CPU, 0
        try:
            placement = self._loader.plan(entry.name)
            fits, device, size = True, placement.device, placement.bytes
            needs = self._needs(entry, placement)
        except DoesNotFit as refused:
            device, size = refused.device, refused.needed_bytes
            needs = self._too_much(entry, refused)
        except LlamaDemoError as broken:
            error = error or broken
        return ModelSummary(
            name=entry.name,
            title=entry.title,
            good_for=entry.good_for,
            repo=entry.repo,
            parameters=entry.parameters,
            format=entry.format,
            access=entry.access,
            licence=entry.licence,
            link=entry.link,
            state=status.state,
            device=device,
            bytes=status.bytes or size,
            fits=fits,
            progress=status.progress,
            error=error,
            where=self._where(entry, fits=fits, known=needs is not None),
            needs=needs,
            leases=status.leases,
            pinned=status.pinned,
        )

    def memory(self, titles: Mapping[str, str]) -> list[DeviceMemory]:
        """`titles` by model's name."""
        statuses = self._registry.statuses()
        return [
            DeviceMemory(
                device,
                self._registry.used_bytes(device),
                budget,
                tuple(
                    Holder(
                        name=name,
                        title=titles.get(name.removesuffix(ANALYSIS), name),
                        bytes=status.bytes,
                        leases=status.leases,
                        state=status.state,
                        is_analysis=name.endswith(ANALYSIS),
                        pinned=status.pinned,
                    )
                    for name, status in statuses.items()
                    if status.bytes and status.device == device
                ),
            )
            for device, budget in self._budgets.items()
        ]

    def _where(self, entry: Entry, *, fits: bool, known: bool) -> Where:
        if not known:
            return "broken"
        if not fits:
            return "too_large"
        if self._is_on_disk(entry):
            return "here"
        return "access" if entry.access == "gated" else "download"

    def _is_on_disk(self, entry: Entry) -> bool:
        if entry.name not in self._on_disk:
            path = entry.path or find_packaged(entry.package)
            path = path or hub.cached(entry.repo, wanted_files(entry), entry.revision)
            self._on_disk[entry.name] = path is not None
        return self._on_disk[entry.name]

    def _shape(self, entry: Entry, to: Quantization) -> Shape:
        if (entry.name, to) not in self._shapes:
            self._shapes[entry.name, to] = read_shape(entry, to)
        return self._shapes[entry.name, to]

    def _needs(self, entry: Entry, placement: Placement) -> Needs:
        token = kv_bytes_per_token(self._shape(entry, "q8_0"), self._cache_bytes_each(entry))
        return Needs(
            device=placement.device,
            weight_bytes=placement.weight_bytes,
            cache_bytes=placement.cache_bytes,
            head_room_bytes=placement.head_room_bytes,
            context_tokens=self._settings.context_tokens,
            conversations=int(placement.cache_bytes / (token * self._settings.context_tokens) + 0.01),
            has_bytes=self._budgets.get(placement.device, 0),
        )

    def _too_much(self, entry: Entry, refused: DoesNotFit) -> Needs | None:
        """The least that it would be started with, as it adds up, and what would help."""
        on_gpu, each = refused.device != CPU, self._cache_bytes_each(entry)
        is_local_folder = entry.format == "hf" and entry.path is not None
        try:
            shape = self._shape(entry, "f16" if on_gpu else "q4_0")
        except BadCheckpoint:
            return None
        needs = least(
            shape, refused.device, refused.free_bytes, self._settings.context_tokens, bytes_each=each, on_gpu=on_gpu
        )
        parameters = entry.parameters or round(shape.weight_bytes / BYTES_EACH["f16" if is_local_folder else "q4_0"])
        smallest = not (on_gpu or is_local_folder)
        return replace(needs, helps=tuple(helps(needs, shape, parameters, smallest=smallest, bytes_each=each)))

    def _cache_bytes_each(self, entry: Entry) -> float:
        if self._settings.device != "cpu" and runs_in_transformers(entry, self._settings.device):
            return 4.0 if self._settings.reproducible else GPU_CACHE_BYTES
        return 4.0 if self._settings.reproducible else FAST_CACHE_BYTES

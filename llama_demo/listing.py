"""The models as people see them: where each could run and what it needs, its state, and who holds a device's memory.

It loads nothing and asks no network: what is on this machine's disk is looked up once for each model, and again when
told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llama_demo.catalog import Entry
from llama_demo.devices import CPU
from llama_demo.errors import BadCheckpoint, DoesNotFit, LlamaDemoError
from llama_demo.fitting import Needs, helps, least
from llama_demo.jobs import JobProgress
from llama_demo.licences import Licence
from llama_demo.loading import ANALYSIS, REMOTE, LoadedModel, Loader
from llama_demo.placement_plan import Plan
from llama_demo.registry import Registry
from llama_demo.saving import to_confirm
from llama_demo.settings import Settings
from llama_demo.sheet import files_of
from llama_demo.values import LoadProgress, ModelState, ResidentStatus

Where = Literal["here", "download", "remote", "access", "too_large", "broken"]
"""Runs here and now; runs here once it is downloaded; on another server; its repository lets nobody in unasked; more
than any device has; or its files are no model."""


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
    job: JobProgress | None = None
    """Its download or its conversion, while one is under way or has failed."""
    refusal: LlamaDemoError | None = None
    """Why the Hub refused its files when it was last asked."""
    pushed: str = ""
    """Where on the Hub the owner put it since the start."""
    can_push: bool = False
    """Whether it has weights of its own, and they are here."""
    terms: Licence | None = None
    """The licence that must be read before it is passed on."""
    can_convert: bool = False
    """Whether a GGUF file made of it would be faster here."""

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
    """What models take of a device, of what they may take, and which of them, as they were loaded; `kept_bytes` are
    nobody's: libraries that serve all of them, and stay."""

    device: str
    used_bytes: int
    budget_bytes: int
    holders: tuple[Holder, ...] = ()
    kept_bytes: int = 0


class Listing:
    """`budgets` are bytes a device."""

    def __init__(
        self, settings: Settings, loader: Loader, registry: Registry[LoadedModel], budgets: Mapping[str, int]
    ) -> None:
        self._settings, self._loader, self._registry, self._budgets = settings, loader, registry, budgets
        self._on_disk: dict[str, bool] = {}

    def look_again(self, name: str) -> None:
        """What is on the disk may have changed for `name`."""
        self._on_disk.pop(name, None)

    def status(self, name: str) -> ResidentStatus:
        """The registry's; of what another server runs, that server's."""
        server = self._loader.remote(name)
        if server is None:
            return self._registry.status(name)
        if server.down is not None:
            return ResidentStatus(ModelState.FAILED, REMOTE, error=server.down)
        if server.found is None:
            return ResidentStatus(ModelState.LOADING, REMOTE, progress=LoadProgress("connect"))
        return ResidentStatus(ModelState.READY, REMOTE, leases=server.active)

    def summary(self, entry: Entry) -> ModelSummary:
        status = self.status(entry.name)
        error: BaseException | None = status.error
        needs: Needs | None = None
        fits, device, size = False, CPU, 0
        try:
            plan = self._loader.plan(entry.name)
            fits, device, size = True, plan.device, plan.bytes
            needs = self._needs(plan) if entry.format != "remote" else None
        except DoesNotFit as refused:
            device, size = refused.device, refused.needed_bytes
            needs = self._too_much(entry, refused)
        except LlamaDemoError as broken:
            error = error or broken
        where = self._where(entry, fits=fits, known=needs is not None)
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
            where=where,
            needs=needs,
            leases=status.leases,
            pinned=status.pinned,
            can_push=entry.has_weights and where == "here",
            terms=to_confirm(entry),
            can_convert=entry.has_weights and entry.path is not None and entry.format == "hf" and device == CPU,
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
                        bytes=status.shares[device],
                        leases=status.leases,
                        state=status.state,
                        is_analysis=name.endswith(ANALYSIS),
                        pinned=status.pinned,
                    )
                    for name, status in statuses.items()
                    if device in status.shares
                ),
                self._registry.kept_bytes(device),
            )
            for device, budget in self._budgets.items()
        ]

    def _where(self, entry: Entry, *, fits: bool, known: bool) -> Where:
        if entry.format == "remote":
            return "remote"
        if not known:
            return "broken"
        if not fits:
            return "too_large"
        if self._is_on_disk(entry):
            return "here"
        return "access" if entry.access == "gated" else "download"

    def _is_on_disk(self, entry: Entry) -> bool:
        if entry.name not in self._on_disk:
            self._on_disk[entry.name] = files_of(entry) is not None
        return self._on_disk[entry.name]

    def _needs(self, plan: Plan) -> Needs:
        return Needs(
            device=plan.device,
            weight_bytes=plan.weight_bytes,
            cache_bytes=plan.cache_bytes,
            head_room_bytes=plan.head_room_bytes,
            context_tokens=self._settings.context_tokens,
            conversations=plan.visitors,
            has_bytes=sum(self._budgets.get(share.device, 0) for share in plan.shares),
            peak_bytes=plan.peak_bytes if plan.peak_bytes > plan.bytes else 0,
            kept_bytes=plan.kept_bytes,
        )

    def _too_much(self, entry: Entry, refused: DoesNotFit) -> Needs | None:
        """The least that it would be started with, as it adds up, and what would help."""
        try:
            form = self._loader.planner.smallest(entry, on_gpu=refused.device != CPU)
            model = self._loader.planner.model(entry)
        except BadCheckpoint:
            return None
        needs = least(form, refused.device, refused.free_bytes, self._settings.context_tokens)
        return replace(needs, helps=tuple(helps(needs, form, model)))

"""The composition root: builds everything from Settings, hands it out, closes it in reverse."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib import util
from pathlib import Path

from llama_demo import placement_plan
from llama_demo.added_models import AddedModels
from llama_demo.budgets import Allowance
from llama_demo.catalog import Catalog, Entry, read_catalog
from llama_demo.checkpoints.adapter import is_adapter
from llama_demo.classify.checkpoint import is_classifier, read_checkpoint
from llama_demo.classify.service import Classification
from llama_demo.credentials import ApiKeys, Users
from llama_demo.devices import CPU, Device, read_cpu, read_gpus
from llama_demo.engines.remote import Patience
from llama_demo.engines.remotes import Remotes
from llama_demo.entry_files import adapter_entries
from llama_demo.errors import Closing, InvalidSetting, LlamaDemoError, MissingPackage
from llama_demo.fitting import Needs
from llama_demo.generation import Generation
from llama_demo.leasing import Leasing
from llama_demo.limits import Admission, Limits
from llama_demo.listing import DeviceMemory, Listing, ModelSummary
from llama_demo.loading import ANALYSIS, LoadedModel, Loader
from llama_demo.management import Management
from llama_demo.messages import Messages, messages
from llama_demo.metrics import Levels, Metrics
from llama_demo.observe import LOG, one_line
from llama_demo.reasons import Reason
from llama_demo.registry import Plan, Registry
from llama_demo.settings import Settings
from llama_demo.sheet import Sheet, files_of, read_sheet
from llama_demo.sheet.tokens import Pieces, read_tokenizer, split
from llama_demo.shelf import Shelf
from llama_demo.values import LoadProgress, ModelState, ResidentStatus
from llama_demo.visitors import Visitors

MEMORY_SHARE = 0.8
"""Of what is free at the start: the page, the tokenizers and the system need the rest."""
GPU_SHARE = 0.95
"""Of what a GPU has free at the start."""
LENT_GPU_BYTES = 70_000_000_000
"""What a ZeroGPU Space is lent."""
PROGRESS_SECONDS = 0.1
"""An adapter's load tells so often of its base's."""
GOODBYE_SECONDS = 5.0
"""Within this time a request has ended that was told to."""
WAIT_SECONDS = 60.0
"""How long a request waits for memory that others hold."""


class Runtime:
    """Everything the page, the API and the command line use. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.visitors = Visitors(public=settings.public, password=settings.owner_password)
        self.api_keys = ApiKeys(Path(settings.api_keys)) if settings.api_keys else None
        self.users = Users(Path(settings.auth_file)) if settings.auth_file else None
        self.metrics = Metrics()
        self.metrics.watch(self._levels)
        adapter = _adapter(settings)
        catalog, self.default_model = read_catalog(
            "" if adapter else settings.model, Path(settings.catalog) if settings.catalog else None
        )
        if adapter:
            catalog, self.default_model = catalog.preceded(adapter), adapter[0].name
        added = AddedModels(settings.cache_dir / "added-models.json")
        everything = catalog.extended(added.entries)
        self.limits = Limits(settings.message_characters, settings.max_new_tokens, settings.context_tokens)
        self.budget_bytes = int(settings.memory_gb * 1e9) or int(read_cpu().free_bytes * MEMORY_SHARE)
        self._budgets = {CPU: self.budget_bytes, **_gpu_budgets(settings)}
        quantizes = util.find_spec("bitsandbytes") is not None and not settings.zero_gpu
        self._remotes = Remotes(everything.entries, os.environ, Patience())
        self._loader = Loader(
            settings, everything, self._budgets, quantizes=quantizes, remotes=self._remotes, gpus=_gpus
        )
        if not settings.model:
            self.default_model = self._loader.default()
        self.registry: Registry[LoadedModel] = Registry(
            budgets=self._budgets,
            plan=self._plan,
            load=self._load,
            idle_seconds=None if settings.zero_gpu else settings.idle_minutes * 60 or None,
            wait_seconds=WAIT_SECONDS,
        )
        self._listing = Listing(settings, self._loader, self.registry, self._budgets)
        self._shelf = Shelf(everything, self.default_model, self._loader, self._listing)
        self.management = Management(
            self.registry, self._shelf, added, settings.cache_dir / "converted", self._loader.original
        )
        self._admission = Admission(settings.concurrent, settings.queue, allowance=_allowance(settings))
        self.generation = Generation(
            self.registry,
            self.limits,
            self._admission,
            log_prompts=settings.log_prompts,
            scores_with=self.reads_with,
            remote=self._remotes.find,
            metrics=self.metrics,
        )
        self.classification = Classification(
            Leasing(self.registry, self._admission, self.metrics),
            self.limits,
            reads_with=self.reads_with,
            checkpoint=self._loader.checkpoint,
            entry_of=self._find,
            folder=settings.cache_dir / "classifiers",
            private=settings.public or bool(settings.owner_password),
        )

    @property
    def catalog(self) -> Catalog:
        """What visitors may choose from."""
        return self._shelf.offered

    def prepare(self, name: str) -> None:
        """Begins to load `name` in the background, so that it is there when somebody asks it something.

        Nothing that others use is unloaded for it; why it failed is in its state, and in the log.
        """
        try:
            self.catalog.find(name)
            if self._remotes.find(name) is not None:
                return
            if self.registry.status(name).state in (ModelState.ABSENT, ModelState.FAILED):
                self.management.load(name)
        except LlamaDemoError as error:
            LOG.error("%s", one_line(self.messages().error(error)))

    def place(self, name: str) -> None:
        """Loads `name` and puts it on the GPU that is lent: on the main thread, and before the page is launched, as
        whoever lends it asks for. Why it failed is in its state, and in the log."""
        from llama_demo.engines.transformers_lent import LentEngine, lender

        try:
            with self.registry.lease(name) as loaded:
                if isinstance(loaded.engine, LentEngine):
                    loaded.engine.place(lender())
        except LlamaDemoError as error:
            LOG.error("%s", one_line(self.messages().error(error)))

    def messages(self, language: str = "en") -> Messages:
        return messages(language)

    def models(self, *, everything: bool = False) -> list[ModelSummary]:
        """Every entry that visitors may choose, or `everything` the owner may, with its state."""
        return [self._summary(entry) for entry in self._shelf.seen_by(owner=everything).entries]

    def status(self, name: str) -> ResidentStatus:
        """The state of the model `name`, wherever it runs."""
        return self._listing.status(name)

    def sheet(self, name: str, *, everything: bool = False) -> Sheet:
        """What `name` is, without its weights. Raises `UnknownModel`, `BadCheckpoint`."""
        return read_sheet(self._whole(name, everything=everything))

    def needs(self, name: str, *, everything: bool = False) -> Needs | None:
        """What `name` takes of this machine, or would; None where nothing tells it. Raises `UnknownModel`."""
        return self._listing.summary(self._shelf.seen_by(owner=everything).find(name)).needs

    def pieces(self, name: str, text: str, *, with_bos: bool, everything: bool = False) -> Pieces | None:
        """`text` as the tokens of `name`; None where its files are not on this machine.

        Raises `UnknownModel`, `BadCheckpoint`, `InvalidParameter`, `InvalidUnicode`.
        """
        files = files_of(self._whole(name, everything=everything))
        return None if files is None else split(read_tokenizer(files), text, with_bos=with_bos)

    def _whole(self, name: str, *, everything: bool) -> Entry:
        """The entry whose files tell of `name`: of an adapter its base's. Raises `UnknownModel`."""
        catalog = self._shelf.seen_by(owner=everything)
        entry = catalog.find(name)
        return replace(catalog.find(entry.base), name=name, title=entry.title) if entry.base else entry

    def memory(self) -> list[DeviceMemory]:
        return self._listing.memory({entry.name: entry.title for entry in self._shelf.everything.entries})

    def _levels(self) -> Levels:
        states = Counter(str(status.state) for status in self.registry.statuses().values())
        return Levels(
            running=self._admission.active,
            waiting=self._admission.waiting,
            evictions=self.registry.evictions(),
            memory=tuple((name, self.registry.used_bytes(name), budget) for name, budget in self._budgets.items()),
            models=tuple(states.items()),
        )

    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._admission.waiting

    def refusal(self) -> LlamaDemoError | None:
        """None where a request would be accepted now, else the error that it would meet."""
        status = self.status(self.default_model)
        if status.state is ModelState.FAILED and isinstance(status.error, LlamaDemoError):
            return status.error
        return self._admission.refusal()

    def drain(self, seconds: float) -> None:
        """Refuses new requests with `Closing`, and returns when those in flight have ended: by themselves within
        `seconds`, else because they were told to."""
        self._admission.close(Closing())
        self._wait_until_idle(seconds)
        if self._admission.active:
            LOG.info("%d requests are told to end", self._admission.active)
            self._admission.end_all(Closing())
            self._wait_until_idle(GOODBYE_SECONDS)

    def _wait_until_idle(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._admission.active and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        self.management.close()
        self.classification.heads.close()
        self.registry.close()
        self._remotes.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reads_with(self, name: str) -> str:
        """The name under which a model's scores and features are leased. Raises `UnknownModel`."""
        return self._loader.reads_with(self.catalog.find(name).name)

    def _find(self, name: str) -> Entry:
        """Raises `UnknownModel`."""
        return self.catalog.find(name)

    def _summary(self, entry: Entry) -> ModelSummary:
        summary, management = self._listing.summary(entry), self.management
        return replace(
            summary,
            where="download" if summary.where == "access" and management.is_granted(entry.name) else summary.where,
            job=management.jobs.progress(entry.name),
            refusal=management.refusal(entry.name),
            pushed=management.pushed(entry.name),
        )

    def _plan(self, name: str) -> Plan:
        self.catalog.find(name.removesuffix(ANALYSIS))
        placements = self._loader.plans(name)
        if base := self._base(name):
            where = self.registry.status(base).device
            placements = [plan for plan in placements if plan.device == where] or placements[:1]
        first, *others = (replace(_counted(placement), base=base) for placement in placements)
        return replace(first, others=tuple(others))

    def _base(self, name: str) -> str:
        return self._shelf.everything.find(name.removesuffix(ANALYSIS)).base

    def _load(self, name: str, plan: Plan, report: Callable[[LoadProgress], None]) -> LoadedModel:
        base = self._base(name)
        if not base:
            return self._loader.load(name, report, plan.device)
        ticket = self.registry.request(base)
        try:
            while (lease := ticket.wait(PROGRESS_SECONDS)) is None:
                report(ticket.progress)
        finally:
            ticket.cancel()
        return self._loader.load_adapter(name, lease.value, lease.release, report)


def _allowance(settings: Settings) -> Allowance | None:
    """What each visitor may have of a public server."""
    if not settings.public:
        return None
    return Allowance(
        concurrent=settings.visitor_concurrent,
        waiting=settings.visitor_waiting,
        requests_per_minute=settings.visitor_requests,
        tokens_per_minute=settings.visitor_tokens,
        request_seconds=settings.request_seconds,
    )


def _adapter(settings: Settings) -> tuple[Entry, ...]:
    """The adapter to start with and its base, where `--model` is an adapter's folder. Raises `BadCheckpoint`,
    `BaseMissing`, and for a classifier as `read_checkpoint`."""
    folder = Path(settings.model).expanduser()
    if not settings.model or not is_adapter(folder):
        return ()
    adapter, base = adapter_entries(folder)
    if is_classifier(adapter.path):
        read_checkpoint(folder, adapter.name, base.path)
    return adapter, base


def _gpu_budgets(settings: Settings) -> dict[str, int]:
    """What models may take of the GPUs that they may use. Raises `InvalidSetting` where the one that was named is not
    there, or none is and 8 or 4 bits are asked for, and `MissingPackage` where those need one."""
    if settings.zero_gpu and settings.device != "cpu":
        return {"cuda:0": LENT_GPU_BYTES}
    gpus = {gpu.name: int(gpu.free_bytes * GPU_SHARE) for gpu in _gpus()} if settings.device != "cpu" else {}
    if settings.device.startswith("cuda"):
        if settings.device not in gpus:
            expected = Reason("expected.device_here", choices=("auto", "cpu", *gpus))
            raise InvalidSetting("--device", settings.device, expected)
        gpus = {settings.device: gpus[settings.device]}
    if settings.dtype.endswith("-bit"):
        if not gpus:
            raise InvalidSetting("--dtype", settings.dtype, Reason("expected.cpu_dtype"))
        if util.find_spec("bitsandbytes") is None:
            raise MissingPackage("bitsandbytes", "pip install bitsandbytes")
    return gpus


def _gpus() -> tuple[Device, ...]:
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order: torch, once loaded, follows it
    return read_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))


def _counted(placement: placement_plan.Plan) -> Plan:
    """The same for the registry's books."""
    parts = tuple((share.device, share.bytes - share.kept_bytes) for share in placement.shares)
    kept = placement.kept_bytes
    return Plan(placement.device, placement.bytes - kept, parts, kept_bytes=kept)

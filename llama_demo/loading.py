"""From a catalog entry to a model that answers: plan, fetch and convert its files, start the engine, warm it up.

It knows files and engines, and nothing of leases, budgets or visitors.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import util
from typing import Any

from llama_demo import hub, prompts
from llama_demo.catalog import EMBEDDED, Catalog, Entry, choose_default
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.adapter import WEIGHTS, read_adapter
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.llama import Checkpoint, read_folder
from llama_demo.devices import CPU, Device
from llama_demo.engines import Engine
from llama_demo.engines.remote import RemoteServer
from llama_demo.engines.remotes import Remotes
from llama_demo.entry_files import read_config, wanted_files
from llama_demo.entry_plans import Planner
from llama_demo.errors import CacheNotWritable, DoesNotFit, LlamaDemoError, MissingPackage, Unsupported
from llama_demo.model_cache import Files, ModelCache, Report
from llama_demo.model_errors import DeviceLost
from llama_demo.placement import TORCH_HEAD_ROOM_BYTES, TORCH_LIBRARY_BYTES, kv_bytes_per_token
from llama_demo.placement_plan import Plan, Share
from llama_demo.remote_errors import RemoteKeepsTokens
from llama_demo.settings import Settings
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import LoadProgress, Sampling

ANALYSIS = "/analysis"
"""Ends the name under which a model's second graph, for scores and features, is leased."""

ANALYSIS_WORK_BYTES = 150_000_000
"""What the second graph takes beside its weights and a context's cache: the compiled head, slices of logits."""

ADAPTER_HEAD_ROOM_BYTES = TORCH_HEAD_ROOM_BYTES - TORCH_LIBRARY_BYTES
"""What an adapter's own batching takes beside its weights and its cache."""

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
REMOTE = "remote"
"""The device of what another server runs."""

_REQUIREMENTS = "pip install -r requirements.txt"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, with what turns text into its ids and back."""

    entry: Entry
    engine: Engine
    tokenizer: Tokenizer
    let_go: Callable[[], None] = lambda: None
    """Called once it is closed."""

    @property
    def healthy(self) -> bool:
        return self.engine.healthy

    def close(self) -> None:
        try:
            self.engine.close()
        finally:
            self.let_go()


class Loader:
    """Loads entries by name. `budgets` are the bytes that models may take of each device; with `quantizes` a GPU may
    hold them in 8 and 4 bits. `remotes` has the servers of the entries that run elsewhere, and `gpus` looks which GPUs
    there are now."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        budgets: Mapping[str, int],
        *,
        quantizes: bool = False,
        remotes: Remotes | None = None,
        gpus: Callable[[], Iterable[Device]] = tuple,
    ) -> None:
        self._settings = settings
        self._gpus = gpus
        self.catalog = catalog
        self._remotes = remotes
        self.planner = Planner(settings, budgets, quantizes=quantizes)
        self._cache = ModelCache(settings.cache_dir / "models")
        self._has_gpu = any(name != CPU for name in budgets)

    def plan(self, name: str) -> Plan:
        """The best way to run `name` here, before anything is fetched. Raises `UnknownModel`, `DoesNotFit`."""
        return self.plans(name)[0]

    def plans(self, name: str) -> list[Plan]:
        """The best way to run `name`, on each of the devices that do equally well. Raises as `plan`."""
        entry = self.catalog.find(name.removesuffix(ANALYSIS))
        if entry.format == "remote":
            return [Plan("remote", "", (Share(REMOTE, 0, 0, 0),), 0)]
        if entry.base:
            return [self._adapter_plan(entry, base) for base in self.plans(entry.base)]
        if not name.endswith(ANALYSIS):
            return self.planner.as_good(entry)
        generator = self.planner.best(entry)
        if generator.way != "openvino":
            raise Unsupported("a second graph", entry.name)
        cache = int(kv_bytes_per_token(self.planner.model(entry), 4.0) * self._settings.context_tokens)
        head_room = generator.head_room_bytes + ANALYSIS_WORK_BYTES
        share = Share(CPU, generator.weight_bytes, cache, head_room)
        return [Plan("openvino", generator.precision, (share,), 1)]

    def _adapter_plan(self, entry: Entry, base: Plan) -> Plan:
        """Beside its base: its own weights, and a cache like the base's. Raises `Unsupported`, `BadCheckpoint`."""
        if base.way == "openvino":
            raise Unsupported(
                "adapters, as it runs through OpenVINO here; name a Hugging Face folder as base", entry.base
            )
        if self._is_lent(base):
            raise Unsupported("adapters, as its GPU is lent for each call", entry.base)
        if entry.path is not None:
            read_adapter(entry.path)
        weights = (entry.path / WEIGHTS).stat().st_size if entry.path is not None else entry.parameters * 4
        each = weights // len(base.shares)
        shares = tuple(
            Share(share.device, each, share.cache_bytes, ADAPTER_HEAD_ROOM_BYTES, share.layers) for share in base.shares
        )
        return replace(base, shares=shares)

    def ways(self, name: str) -> list[Plan]:
        """Every way to run `name` here, best first; none where nothing fits. Raises `UnknownModel`."""
        entry = self.catalog.find(name)
        return self.plans(name) if entry.format == "remote" else self.planner.ways(entry)

    def remote(self, name: str) -> RemoteServer | None:
        """The server that runs `name`; None where it runs here."""
        return self._remotes.find(name) if self._remotes is not None else None

    def reads_with(self, name: str) -> str:
        """The name under which the scores and features of `name` are leased: its own where its engine has them.

        Raises `UnknownModel`, and `RemoteKeepsTokens` where it runs elsewhere."""
        entry = self.catalog.find(name)
        if entry.format == "remote":
            raise RemoteKeepsTokens(entry.title)
        try:
            return name if entry.base or self.planner.best(entry).way != "openvino" else name + ANALYSIS
        except DoesNotFit:
            return name

    def default(self) -> str:
        """The name of the best entry that runs here without further steps."""
        entries, last = self.catalog.entries, EMBEDDED
        if self._settings.zero_gpu:  # which is for those that transformers runs
            fetched = [entry for entry in entries if entry.format == "hf" and entry.has_weights and entry.repo]
            open_ones = [entry for entry in fetched if entry.access == "open"]
            last = min(open_ones, key=lambda entry: entry.parameters, default=last)
        return choose_default(entries, has_gpu=self._has_gpu, is_ready=self._is_ready, last=last).name

    def _is_ready(self, entry: Entry) -> bool:
        if entry.format == "remote":
            return False
        try:
            self.plan(entry.name)
        except LlamaDemoError:
            return False
        return entry.path is not None or hub.cached(entry.repo, wanted_files(entry), entry.revision) is not None

    def load(self, name: str, report: Report, device: str = "") -> LoadedModel:
        """Loads `name`, telling each step; blocks. The caller closes what it gets. `device` is that of one of `plans`.

        Raises `NoModel`, `HubUnavailable`, `DiskFull`, `CacheNotWritable`, `BadCheckpoint`, `MissingPackage`,
        `DeviceLost` or `MemoryError`.
        """
        entry = self.catalog.find(name.removesuffix(ANALYSIS))
        plans = self.plans(name)
        plan = next((plan for plan in plans if plan.device == device), plans[0])
        report = _timed(report)
        files = self._files(entry, report)
        tokenizer = Tokenizer.load(files.tokenizer)
        tokenizer.chat_template = tokenizer.chat_template or prompts.template_for(entry.name)
        report(LoadProgress("load"))
        try:
            engine = self._start(entry, plan, files, tokenizer, analyses=name.endswith(ANALYSIS))
        except (RuntimeError, AssertionError) as error:  # as torch has it, in many words
            if (lost := self._lost(entry, plan)) is not None:
                raise lost from error
            raise
        model = LoadedModel(entry, engine, tokenizer)
        return model if self._is_lent(plan) else _warmed_up(model, report)

    def load_adapter(self, name: str, base: LoadedModel, let_go: Callable[[], None], report: Report) -> LoadedModel:
        """Loads the adapter `name` onto `base`, which stays loaded until `let_go` is called, here or by its closing.

        Blocks. Raises `WrongBase`, `BadCheckpoint`, `HubUnavailable`, `MemoryError`.
        """
        from llama_demo.engines.transformers import TransformersEngine

        report = _timed(report)
        try:
            entry, engine = self.catalog.find(name), base.engine
            assert isinstance(engine, TransformersEngine), "the plan refuses others"
            plan = self.plan(name)
            files = self._cache.files(entry, plan, report)
            report(LoadProgress("load"))
            made = TransformersEngine(
                files.weights,
                name=name,
                eos_ids=base.tokenizer.eos_ids,
                context_tokens=engine.context_tokens,
                cache_bytes=plan.cache_bytes,
                base=engine,
            )
        except BaseException:
            let_go()
            raise
        return _warmed_up(LoadedModel(entry, made, base.tokenizer, let_go), report)

    def original(self, entry: Entry, report: Report) -> Checkpoint:
        """The weights of `entry` as they are, fetched where they are not here. Blocks; raises as `load`."""
        return self._cache.original(entry, _timed(report))

    def checkpoint(self, name: str, report: Report) -> Checkpoint:
        """The files that `name` is read from, to be written in another form: fetched and converted first where they
        must be. Blocks; raises as `load`."""
        entry = self.catalog.find(name)
        if entry.base or entry.format == "remote":
            kind = "an adapter" if entry.base else "it runs on another server"
            raise Unsupported(f"being written in another form, as {kind}", name)
        files = self._files(entry, _timed(report))
        if files.weights.is_file():
            return read_gguf(files.weights, files.tokenizer)
        return replace(read_folder(files.weights), tokenizer=files.tokenizer)

    def _files(self, entry: Entry, report: Report) -> Files:
        """Raises as `load`."""
        try:
            return self._cache.files(entry, self.planner.best(entry), report)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            raise CacheNotWritable(str(error.filename or self._settings.cache_dir)) from None

    def _start(self, entry: Entry, plan: Plan, files: Files, tokenizer: Tokenizer, *, analyses: bool) -> Engine:
        settings = self._settings
        facts: dict[str, Any] = {
            "name": entry.name,
            "context_tokens": min(settings.context_tokens, self._model_context(files)),
            "reproducible": settings.reproducible,
        }
        if plan.way == "openvino" and util.find_spec("openvino_genai") is None:
            raise MissingPackage("openvino-genai", _REQUIREMENTS)
        if analyses:
            from llama_demo.engines.openvino_analysis import OpenVINOAnalysis

            return OpenVINOAnalysis(files.weights, **facts)
        facts |= {"eos_ids": tokenizer.eos_ids, "cache_bytes": plan.cache_bytes}
        if plan.way == "openvino":
            from llama_demo.engines.openvino import OpenVINOEngine

            return OpenVINOEngine(files.weights, **facts)
        facts |= {"dtype": self._dtype(plan, files), "pretraining_tp": entry.pretraining_tp}
        if self._is_lent(plan):
            from llama_demo.engines.transformers_lent import LentEngine

            return LentEngine(files.weights, **facts)
        from llama_demo.engines.transformers import TransformersEngine

        layers = {share.device.replace(CPU, "cpu"): share.layers for share in plan.shares}
        return TransformersEngine(files.weights, **facts, layers=layers)

    def _lost(self, entry: Entry, plan: Plan) -> DeviceLost | None:
        """Why `plan` could not be kept, where it is for a GPU that has gone since the start."""
        if self._is_lent(plan):
            return None
        there = {CPU, *(gpu.name for gpu in self._gpus())}
        gone = [share.device for share in plan.shares if share.device not in there]
        return DeviceLost(entry.title, ", ".join(gone)) if gone else None

    def _is_lent(self, plan: Plan) -> bool:
        """Whether its GPU is there for a call at a time: the first one is a visitor's."""
        return self._settings.zero_gpu and plan.device != CPU

    def _dtype(self, plan: Plan, files: Files) -> str:
        """The settings' own; for `auto` the checkpoint's, but what the plan for a GPU says where that is less."""
        dtype = self._settings.dtype
        if dtype != "auto" or plan.device == CPU:
            return "auto" if dtype.endswith("-bit") and plan.device == CPU else dtype
        stored = read_config(files.weights)
        is_wide = (stored.get("dtype") or stored.get("torch_dtype") or "float32") == "float32"
        return {"16-bit": "bfloat16" if is_wide else "auto"}.get(plan.precision, plan.precision)

    def _model_context(self, files: Files) -> int:
        if files.weights.is_dir():
            return int(read_config(files.weights).get("max_position_embeddings") or self._settings.context_tokens)
        return gguf.read_header(files.weights).context_length


def _timed(report: Report) -> Report:
    started = time.monotonic()

    def tell(progress: LoadProgress) -> None:
        seconds = time.monotonic() - started
        report(LoadProgress(progress.step, progress.done_bytes, progress.total_bytes, progress.place, seconds))

    return tell


def _warmed_up(model: LoadedModel, report: Report) -> LoadedModel:
    try:
        report(LoadProgress("warm_up"))
        _warm_up(model.engine)
    except BaseException:
        model.close()
        raise
    return model


def _warm_up(engine: Engine) -> None:
    """The first request pays for preparations (seconds on a 7B): so it is ours, not a visitor's."""
    if engine.abilities.generate:
        for _ in engine.generate([1, 2, 3], Sampling(max_new_tokens=2, temperature=0.0)):
            continue
    elif engine.abilities.score:
        engine.score([1, 2, 3], top_k=1)
    else:
        engine.embed([[1, 2, 3]])

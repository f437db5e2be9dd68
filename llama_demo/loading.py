"""From a catalog entry to a model that answers: fetch, convert once into the cache, start the engine, warm it up.

It knows files and engines, and nothing of leases, budgets or visitors.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path

from llama_demo import hub, prompts
from llama_demo.catalog import Catalog, Entry, choose_default
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.checkpoints.llama import Checkpoint, read_folder
from llama_demo.checkpoints.whole import remove_abandoned
from llama_demo.devices import CPU
from llama_demo.engines import Engine
from llama_demo.entry_files import (
    CONVERTED_TO,
    find_packaged,
    is_converted,
    read_config,
    read_shape,
    runs_in_transformers,
    wanted_files,
)
from llama_demo.errors import (
    BadCheckpoint,
    CacheNotWritable,
    DoesNotFit,
    HubUnavailable,
    LlamaDemoError,
    MissingPackage,
    NoModel,
    Unsupported,
)
from llama_demo.placement import BYTES_EACH, HEAD_ROOM_BYTES, Placement, Shape, place
from llama_demo.placement_plan import GPU_HEAD_ROOM_BYTES
from llama_demo.settings import Settings
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import LoadProgress, LoadStep, Sampling

ANALYSIS = "/analysis"
"""Ends the name under which a model's second graph, for scores and features, is leased."""

ANALYSIS_BYTES = 450_000_000
"""What the second graph takes beside its weights: the compiled head, a context's cache, slices of logits."""
CACHED_CONTEXTS = 8
"""Full conversations that the KV cache holds side by side; a usual one is far shorter than the context."""
FAST_CACHE_BYTES = 1.25
"""A number of the fast profile's KV cache: one byte, and its share of scales and zero points, rounded up."""

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_REQUIREMENTS = "pip install -r requirements.txt"

Report = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, with what turns text into its ids and back."""

    entry: Entry
    engine: Engine
    tokenizer: Tokenizer

    @property
    def healthy(self) -> bool:
        return self.engine.healthy

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True, slots=True)
class Files:
    """Where an entry's weights and tokenizer lie on this machine's disk."""

    weights: Path
    tokenizer: Path


def analysis_name(entry: Entry, device: str = "cpu") -> str:
    """The name under which `entry`'s scores and features are leased: its own where its engine has them."""
    return entry.name if runs_in_transformers(entry, device) else entry.name + ANALYSIS


class Loader:
    """Loads entries by name. `budget_bytes` is what models may take on the CPU, `gpu_bytes` on `settings.device` where
    that is a GPU."""

    def __init__(self, settings: Settings, catalog: Catalog, budget_bytes: int, gpu_bytes: int = 0) -> None:
        self._gpu_bytes = gpu_bytes
        self._settings = settings
        self._catalog = catalog
        self._budget_bytes = budget_bytes
        self._shapes: dict[tuple[str, Quantization], Shape] = {}
        remove_abandoned(settings.cache_dir / "models", "*")
        for folder in (settings.cache_dir / "models").glob("*/"):
            remove_abandoned(folder)

    def plan(self, name: str) -> Placement:
        """What loading `name` will take, before anything is fetched. Raises `UnknownModel`, `DoesNotFit`."""
        entry = self._catalog.find(name.removesuffix(ANALYSIS))
        chosen, placement = self._chosen(entry)
        if name.endswith(ANALYSIS):
            return Placement(CPU, self._shape(entry, chosen).weight_bytes, ANALYSIS_BYTES)
        return placement

    def default(self) -> str:
        """The name of the best entry that runs here without further steps."""
        return choose_default(self._catalog.entries, has_gpu=self._gpu_bytes > 0, is_ready=self._is_ready).name

    def _is_ready(self, entry: Entry) -> bool:
        try:
            self.plan(entry.name)
        except LlamaDemoError:
            return False
        return entry.path is not None or hub.cached(entry.repo, wanted_files(entry), entry.revision) is not None

    def _chosen(self, entry: Entry) -> tuple[Quantization, Placement]:
        """The type that a checkpoint is converted to: the most exact one that fits. Raises `DoesNotFit`."""
        *others, last = self._types(entry)
        for to in others:
            with suppress(DoesNotFit):
                return to, self._place(entry, to)
        return last, self._place(entry, last)

    def _on_gpu(self, entry: Entry) -> bool:
        return self._gpu_bytes > 0 and runs_in_transformers(entry, self._settings.device)

    def _types(self, entry: Entry) -> tuple[Quantization, ...]:
        if self._on_gpu(entry):
            return ("f32" if self._settings.reproducible or self._settings.dtype == "float32" else "f16",)
        return CONVERTED_TO if is_converted(entry) else ("q8_0",)

    def _shape(self, entry: Entry, to: Quantization) -> Shape:
        if (entry.name, to) not in self._shapes:
            self._shapes[entry.name, to] = read_shape(entry, to)
        return self._shapes[entry.name, to]

    def _place(self, entry: Entry, to: Quantization) -> Placement:
        if self._on_gpu(entry):
            device, budget_bytes, head_room_bytes = self._settings.device, self._gpu_bytes, GPU_HEAD_ROOM_BYTES
            bytes_each = BYTES_EACH[to]
        else:
            device, budget_bytes, head_room_bytes = CPU, self._budget_bytes, HEAD_ROOM_BYTES
            bytes_each = 4.0 if self._settings.reproducible else FAST_CACHE_BYTES
        return place(
            entry.name,
            self._shape(entry, to),
            device=device,
            budget_bytes=budget_bytes,
            context_tokens=self._settings.context_tokens,
            contexts=CACHED_CONTEXTS,
            bytes_each=bytes_each,
            head_room_bytes=head_room_bytes,
        )

    def load(self, name: str, report: Report) -> LoadedModel:
        """Loads `name`, telling each step; blocks. The caller closes what it gets.

        Raises `NoModel`, `HubUnavailable`, `DiskFull`, `CacheNotWritable`, `BadCheckpoint`, `MissingPackage` or
        `MemoryError`.
        """
        entry = self._catalog.find(name.removesuffix(ANALYSIS))
        report = _timed(report)
        try:
            files = self._prepare(entry, report)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            raise CacheNotWritable(str(error.filename or self._settings.cache_dir)) from None
        tokenizer = Tokenizer.load(files.tokenizer)
        tokenizer.chat_template = tokenizer.chat_template or prompts.template_for(entry.name)
        report(LoadProgress("load"))
        engine = self._start(name, entry, files, tokenizer)
        try:
            report(LoadProgress("warm_up"))
            _warm_up(engine)
        except BaseException:
            engine.close()
            raise
        return LoadedModel(entry, engine, tokenizer)

    def checkpoint(self, name: str, report: Report) -> Checkpoint:
        """The files that `name` is read from, to be written in another form: fetched and converted first where they
        must be. Blocks; raises as `load`."""
        files = self._prepare(self._catalog.find(name), _timed(report))
        if files.weights.is_file():
            return read_gguf(files.weights, files.tokenizer)
        return replace(read_folder(files.weights), tokenizer=files.tokenizer)

    # From an entry to files.

    def _prepare(self, entry: Entry, report: Report) -> Files:
        if entry.format == "hf" and entry.path is not None:
            return Files(entry.path, self._tokenizer_folder(entry.path))
        source = entry.path or find_packaged(entry.package) or self._downloaded(entry, report)
        if entry.format == "meta":
            return self._from_meta(entry, source, report)
        if source.is_file():
            return self._from_gguf(entry, source, report)
        if self._on_gpu(entry):
            return Files(source, self._tokenizer_folder(source))
        to, _ = self._chosen(entry)
        return Files(
            self._converted(
                self._cache_folder(entry.name, source),
                to,
                report,
                lambda target, tell: gguf.write_gguf(source, target, to=to, report=tell),
            ),
            self._tokenizer_folder(source),
        )

    def _from_gguf(self, entry: Entry, source: Path, report: Report) -> Files:
        header = gguf.read_header(source)
        folder = self._cache_folder(entry.name, source)
        if not (folder / "tokenizer.json").is_file():
            gguf.write_tokenizer(source, folder)
        if not gguf.needs_requantizing(header):
            return Files(source, folder)
        weights = self._converted(
            folder, "q8_0", report, lambda target, tell: gguf.requantize(source, target, report=tell)
        )
        return Files(weights, folder)

    def _from_meta(self, entry: Entry, source: Path, report: Report) -> Files:
        from llama_demo.checkpoints.convert import convert

        folder = self._cache_folder(entry.name, source / "params.json")
        if self._on_gpu(entry):
            if not (folder / "hf").is_dir():
                report(LoadProgress("convert"))
                convert(source, folder / "hf", to="hf", report=_counting(report, "convert"))
            return Files(folder / "hf", folder / "hf")
        to, _ = self._chosen(entry)

        def write(target: Path, tell: Callable[[int, int], None]) -> None:
            target.unlink(missing_ok=True)
            convert(source, target, to="gguf", quantization=to, report=tell)

        weights = self._converted(folder, to, report, write)
        if not (folder / "tokenizer.json").is_file():
            gguf.write_tokenizer(weights, folder)
        return Files(weights, folder)

    def _downloaded(self, entry: Entry, report: Report) -> Path:
        """The snapshot's folder, or the GGUF file in it."""
        report(LoadProgress("download"))
        try:
            source = hub.download(
                entry.repo,
                wanted_files(entry),
                _counting(report, "download"),
                revision=entry.revision,
            )
        except HubUnavailable:
            if not entry.package:
                raise
            raise NoModel(entry.title, entry.package.replace("_", "-"), entry.repo) from None
        return source / entry.file if entry.file else source

    def _converted(
        self,
        folder: Path,
        to: Quantization,
        report: Report,
        convert: Callable[[Path, Callable[[int, int], None]], None],
    ) -> Path:
        """The file of type `to` in `folder`, made by `convert` where it is not there or damaged."""
        target = folder / f"model-{to}.gguf"
        try:
            gguf.read_header(target)
        except BadCheckpoint:
            report(LoadProgress("convert"))
            convert(target, _counting(report, "convert"))
        return target

    def _cache_folder(self, name: str, source: Path) -> Path:
        """A folder that changes with the source's place, size and time, so that nothing stale is served."""
        facts = source.stat()
        stamp = hashlib.sha256(f"{source}|{facts.st_size}|{facts.st_mtime_ns}".encode()).hexdigest()[:12]
        folder = self._settings.cache_dir / "models" / f"{name}-{stamp}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _tokenizer_folder(self, source: Path) -> Path:
        """`source` itself, or a cached folder with the fast tokenizer made from its `tokenizer.model`."""
        if (source / "tokenizer.json").is_file():
            return source
        from transformers import AutoTokenizer

        folder = self._cache_folder(source.name.lower(), source)
        if not (folder / "tokenizer.json").is_file():
            AutoTokenizer.from_pretrained(str(source)).save_pretrained(folder)
        return folder

    # From files to an engine.

    def _start(self, name: str, entry: Entry, files: Files, tokenizer: Tokenizer) -> Engine:
        context_tokens = min(self._settings.context_tokens, self._model_context(files))
        reproducible = self._settings.reproducible
        if runs_in_transformers(entry, self._settings.device):
            if name.endswith(ANALYSIS):
                raise Unsupported("a second graph", entry.name)
            from llama_demo.engines.transformers import TransformersEngine

            return TransformersEngine(
                files.weights,
                name=entry.name,
                eos_ids=tokenizer.eos_ids,
                context_tokens=context_tokens,
                cache_bytes=self.plan(name).cache_bytes,
                device=self._settings.device if self._on_gpu(entry) else "cpu",
                dtype=self._settings.dtype,
                reproducible=reproducible,
            )
        if util.find_spec("openvino_genai") is None:
            raise MissingPackage("openvino-genai", _REQUIREMENTS)
        if name.endswith(ANALYSIS):
            from llama_demo.engines.openvino_analysis import OpenVINOAnalysis

            return OpenVINOAnalysis(
                files.weights, name=entry.name, context_tokens=context_tokens, reproducible=reproducible
            )
        from llama_demo.engines.openvino import OpenVINOEngine

        return OpenVINOEngine(
            files.weights,
            name=entry.name,
            eos_ids=tokenizer.eos_ids,
            context_tokens=context_tokens,
            cache_bytes=self.plan(name).cache_bytes,
            reproducible=reproducible,
        )

    def _model_context(self, files: Files) -> int:
        if files.weights.is_dir():
            return int(read_config(files.weights).get("max_position_embeddings") or self._settings.context_tokens)
        return gguf.read_header(files.weights).context_length


def _counting(report: Report, step: LoadStep) -> Callable[[int, int], None]:
    """Tells `report` of bytes done and in all."""
    return lambda done, total: report(LoadProgress(step, done, total))


def _timed(report: Report) -> Report:
    started = time.monotonic()

    def tell(progress: LoadProgress) -> None:
        seconds = time.monotonic() - started
        report(LoadProgress(progress.step, progress.done_bytes, progress.total_bytes, progress.place, seconds))

    return tell


def _warm_up(engine: Engine) -> None:
    """The first request pays for preparations (seconds on a 7B): so it is ours, not a visitor's."""
    if engine.abilities.generate:
        for _ in engine.generate([1, 2, 3], Sampling(max_new_tokens=2, temperature=0.0)):
            continue
    elif engine.abilities.score:
        engine.score([1, 2, 3], top_k=1)
    else:
        engine.embed([[1, 2, 3]])

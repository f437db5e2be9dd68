"""From a catalog entry to a model that answers: fetch, convert once into the cache, start the engine, warm it up.

It knows files and engines, and nothing of leases, budgets or visitors.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from llama_demo import hub, prompts
from llama_demo.catalog import Catalog, Entry
from llama_demo.checkpoints import gguf
from llama_demo.devices import CPU
from llama_demo.engines import Engine
from llama_demo.errors import (
    BadCheckpoint,
    CacheNotWritable,
    HubUnavailable,
    MissingPackage,
    NoModel,
    Unsupported,
)
from llama_demo.placement import Placement, Shape, place
from llama_demo.settings import Settings
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import LoadProgress, Sampling

ANALYSIS = "/analysis"
"""Ends the name under which a model's second graph, for scores and features, is leased."""

HUB_FILES = ("config.json", "generation_config.json", "*.safetensors", "tokenizer*", "chat_template.jinja")
ANALYSIS_BYTES = 450_000_000
"""What the second graph takes beside its weights: the compiled head, a context's cache, slices of logits."""
CACHED_CONTEXTS = 8
"""Full conversations that the KV cache holds side by side; a usual one is far shorter than the context."""
FAST_CACHE_BYTES = 1.25
"""A number of the fast profile's KV cache: one byte, and its share of scales and zero points, rounded up."""

_EMBEDDED_SHAPE = Shape(weight_bytes=145_000_000, layers=30, kv_heads=3, head_size=64)
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


def analysis_name(entry: Entry) -> str:
    """The name under which `entry`'s scores and features are leased: its own where its engine has them."""
    return entry.name if entry.format == "hf" and entry.path is not None else entry.name + ANALYSIS


class Loader:
    """Loads entries by name. `budget_bytes` is what models may take on the CPU."""

    def __init__(self, settings: Settings, catalog: Catalog, budget_bytes: int) -> None:
        self._settings = settings
        self._catalog = catalog
        self._budget_bytes = budget_bytes
        self._shapes: dict[str, Shape] = {}

    def plan(self, name: str) -> Placement:
        """What loading `name` will take, before anything is fetched. Raises `UnknownModel`, `DoesNotFit`."""
        entry = self._catalog.find(name.removesuffix(ANALYSIS))
        if entry.name not in self._shapes:
            self._shapes[entry.name] = _shape(entry)
        shape = self._shapes[entry.name]
        if name.endswith(ANALYSIS):
            return Placement(CPU, shape.weight_bytes, ANALYSIS_BYTES)
        return place(
            name,
            shape,
            device=CPU,
            budget_bytes=self._budget_bytes,
            context_tokens=self._settings.context_tokens,
            contexts=CACHED_CONTEXTS,
            bytes_each=4.0 if self._settings.reproducible else FAST_CACHE_BYTES,
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

    # From an entry to files.

    def _prepare(self, entry: Entry, report: Report) -> Files:
        if entry.format == "hf" and entry.path is not None:
            return Files(entry.path, self._tokenizer_folder(entry.path))
        source = entry.path or find_packaged(entry.package)
        if source is not None:
            return self._from_gguf(entry, source, report)
        return self._from_hub(entry, report)

    def _from_gguf(self, entry: Entry, source: Path, report: Report) -> Files:
        header = gguf.read_header(source)
        folder = self._cache_folder(entry.name, source)
        if not (folder / "tokenizer.json").is_file():
            gguf.write_tokenizer(source, folder)
        if not gguf.needs_requantizing(header):
            return Files(source, folder)
        return self._converted(folder, report, lambda target, tell: gguf.requantize(source, target, report=tell))

    def _from_hub(self, entry: Entry, report: Report) -> Files:
        report(LoadProgress("download"))
        try:
            source = hub.download(
                entry.repo, HUB_FILES, lambda done, total: report(LoadProgress("download", done, total))
            )
        except HubUnavailable:
            raise NoModel(entry.title, entry.package.replace("_", "-"), entry.repo) from None
        files = self._converted(
            self._cache_folder(entry.name, source),
            report,
            lambda target, tell: gguf.write_gguf(source, target, to="q8_0", report=tell),
        )
        return Files(files.weights, source)

    def _converted(
        self, folder: Path, report: Report, convert: Callable[[Path, Callable[[int, int], None]], None]
    ) -> Files:
        """The Q8_0 file in `folder`, made by `convert` where it is not there or damaged."""
        target = folder / "model-q8_0.gguf"
        try:
            gguf.read_header(target)
        except BadCheckpoint:
            report(LoadProgress("convert"))
            convert(target, lambda done, total: report(LoadProgress("convert", done, total)))
        return Files(target, folder)

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
        context_tokens = min(self._settings.context_tokens, self._model_context(entry, files))
        reproducible = self._settings.reproducible
        if entry.format == "hf" and entry.path is not None:
            if name.endswith(ANALYSIS):
                raise Unsupported("a second graph", entry.name)
            from llama_demo.engines.transformers import TransformersEngine

            return TransformersEngine(
                files.weights,
                name=entry.name,
                eos_ids=tokenizer.eos_ids,
                context_tokens=context_tokens,
                cache_bytes=self.plan(name).cache_bytes,
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

    def _model_context(self, entry: Entry, files: Files) -> int:
        if entry.format == "hf" and entry.path is not None:
            return int(read_config(files.weights).get("max_position_embeddings") or self._settings.context_tokens)
        return gguf.read_header(files.weights).context_length


def _shape(entry: Entry) -> Shape:
    """What the arithmetic needs, read from a header or a configuration, never from weights."""
    if entry.path is None:
        return _EMBEDDED_SHAPE
    if entry.format == "gguf":
        header = gguf.read_header(entry.path)
        weight_bytes = entry.path.stat().st_size
        if gguf.needs_requantizing(header):
            weight_bytes = int(header.parameters * 34 / 32)
        return Shape(weight_bytes, header.block_count, header.head_count_kv, header.head_dim)
    config = read_config(entry.path)
    heads = int(config["num_attention_heads"])
    return Shape(
        weight_bytes=sum(file.stat().st_size for file in entry.path.glob("*.safetensors")),
        layers=int(config["num_hidden_layers"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
    )


def find_packaged(package: str) -> Path | None:
    """The GGUF file that an installed package carries, without importing the package."""
    found = util.find_spec(package) if package else None
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.rglob("*.gguf"))), None)


def read_config(folder: Path) -> dict[str, int]:
    """A Hugging Face folder's `config.json`. Raises `BadCheckpoint` where it is unreadable or not a Llama's."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "LlamaForCausalLM" not in config.get("architectures", []):
            raise BadCheckpoint(str(path), "it does not describe a LlamaForCausalLM")
    except (OSError, ValueError, AttributeError, TypeError):
        raise BadCheckpoint(str(path), "it is not readable as a configuration") from None
    missing = [key for key in ("num_attention_heads", "num_hidden_layers", "hidden_size") if key not in config]
    if missing:
        raise BadCheckpoint(str(path), f"it lacks {', '.join(missing)}")
    return dict(config)


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
    else:
        engine.score([1, 2, 3], top_k=1)

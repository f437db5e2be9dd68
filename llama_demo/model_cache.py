"""An entry's files on this machine: fetched, and converted once into the cache.

It starts no engine, and knows nothing of memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_demo import hub
from llama_demo.catalog import Entry
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.convert import convert, read_checkpoint
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.checkpoints.hf_write import OTHER_FILES_BYTES, write_tokenizer
from llama_demo.checkpoints.llama import Checkpoint, Config
from llama_demo.checkpoints.meta_params import CONTEXT_TOKENS
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.checkpoints.whole import remove_abandoned, replacing, replacing_folder
from llama_demo.entry_files import find_packaged, read_config, wanted_files
from llama_demo.entry_plans import CONVERTED_TO
from llama_demo.errors import BadCheckpoint, HubUnavailable, NoModel
from llama_demo.placement_plan import Plan
from llama_demo.values import LoadProgress, LoadStep

COPIED_BYTES = 2**24
"""Of a file at a time."""
Report = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True)
class Files:
    """Where an entry's weights and tokenizer lie on this machine's disk."""

    weights: Path
    tokenizer: Path


class ModelCache:
    """`folder` is where converted models are kept; what a killed process left half written in it goes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        remove_abandoned(folder)
        for converted in folder.glob("*/"):
            remove_abandoned(converted)

    def files(self, entry: Entry, plan: Plan, report: Report) -> Files:
        """Fetched, and converted for `plan` where that is not done yet. Blocks.

        Raises `NoModel`, `HubUnavailable`, `DiskFull`, `BadCheckpoint`, and `OSError` where it cannot be written.
        """
        if entry.base:
            folder = entry.path or self._downloaded(entry, report)
            return Files(folder, folder)
        if entry.format == "hf" and entry.path is not None:
            return Files(entry.path, self._tokenizer_folder(entry.path))
        source = entry.path or find_packaged(entry.package) or self._downloaded(entry, report)
        if entry.format == "meta":
            return self._from_meta(entry, source, plan, report)
        if source.is_file():
            return self._from_gguf(entry, source, report)
        if plan.way != "openvino":
            return Files(source, self._tokenizer_folder(source))
        to = _type_of(plan)
        return Files(
            self._converted(
                self._cache_folder(entry.name, source),
                to,
                report,
                lambda target, tell: gguf.write_gguf(source, target, to=to, report=tell),
            ),
            self._tokenizer_folder(source),
        )

    def original(self, entry: Entry, report: Report) -> Checkpoint:
        """The entry's own weights, fetched where they are not here, unconverted. Blocks; raises as `files`."""
        source = entry.path or find_packaged(entry.package) or self._downloaded(entry, report)
        if not source.is_file():
            return read_checkpoint(source)
        folder = self._cache_folder(entry.name, source)
        if not (folder / "tokenizer.json").is_file():
            gguf.write_tokenizer(source, folder)
        return read_gguf(source, folder)

    def _from_gguf(self, entry: Entry, source: Path, report: Report) -> Files:
        header = gguf.read_header(source)
        folder = self._cache_folder(entry.name, source)
        if not (folder / "tokenizer.json").is_file():
            gguf.write_tokenizer(source, folder)
        if not gguf.unfaithful_types(header):
            return Files(_openable(source, folder, report), folder)
        weights = self._converted(
            folder, "q8_0", report, lambda target, tell: gguf.requantize(source, target, report=tell)
        )
        return Files(weights, folder)

    def _from_meta(self, entry: Entry, source: Path, plan: Plan, report: Report) -> Files:
        folder = self._cache_folder(entry.name, source / "params.json")
        if plan.way != "openvino":
            if not (folder / "hf").is_dir():
                report(LoadProgress("convert"))
                convert(source, folder / "hf", to="hf", report=_counting(report, "convert"))
            return Files(folder / "hf", folder / "hf")
        to = _type_of(plan)

        def write(target: Path, tell: Callable[[int, int], None]) -> None:
            convert(source, target, to="gguf", quantization=to, report=tell, replace=True)

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
        return _openable(target, folder, report)

    def _cache_folder(self, name: str, source: Path) -> Path:
        """A folder that changes with the source's place, size and time, so that nothing stale is served."""
        facts = source.stat()
        stamp = hashlib.sha256(f"{source}|{facts.st_size}|{facts.st_mtime_ns}".encode()).hexdigest()[:12]
        folder = self._folder / f"{name}-{stamp}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _tokenizer_folder(self, source: Path) -> Path:
        """`source` itself, or a cached folder with the fast tokenizer made from its `tokenizer.model`."""
        if (source / "tokenizer.json").is_file():
            return source
        folder = self._cache_folder(source.name.lower(), source) / "tokenizer"
        if not folder.is_dir():
            config = Config(source / "config.json", {"max_position_embeddings": CONTEXT_TOKENS, **read_config(source)})
            with replacing_folder(folder, OTHER_FILES_BYTES) as made:
                write_tokenizer(Checkpoint(source, source, config, read_tensors(source)), made)
        return folder


def _openable(weights: Path, folder: Path, report: Report) -> Path:
    """`weights`, or a copy in `folder` where they may not be written: OpenVINO opens a file for writing, and then only
    reads it. Raises `DiskFull`, and `OSError` where there can be no copy."""
    copy = folder / "model-copy.gguf"
    for path in (weights, copy):
        if os.access(path, os.W_OK):
            return path
    total, tell = weights.stat().st_size, _counting(report, "convert")
    with weights.open("rb") as source, replacing(copy, total) as target:
        while block := source.read(COPIED_BYTES):
            target.write(block)
            tell(source.tell(), total)
    return copy


def _type_of(plan: Plan) -> Quantization:
    """What a checkpoint is converted to: the most exact type, where the plan was made for a file as it is."""
    return next((kind for kind in CONVERTED_TO if kind == plan.precision), CONVERTED_TO[0])


def _counting(report: Report, step: LoadStep) -> Callable[[int, int], None]:
    """Tells `report` of bytes done and in all."""
    return lambda done, total: report(LoadProgress(step, done, total))

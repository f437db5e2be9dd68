"""Looks at this machine and says what the app would find: packages, memory, disk, the embedded model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata

from llama_demo.catalog import EMBEDDED
from llama_demo.devices import read_cpu
from llama_demo.entry_files import find_packaged
from llama_demo.messages import size
from llama_demo.settings import Settings

PACKAGES = ("gradio", "transformers", "torch", "huggingface_hub", "openvino-genai", "gguf", "tokenizers")
LEAST_MEMORY_BYTES = 2_000_000_000
LEAST_DISK_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: a key of the message table and its data."""

    key: str
    good: bool
    data: dict[str, object] = field(default_factory=dict)


def examine(settings: Settings) -> list[Finding]:
    """Everything that was looked at, the good with the bad."""
    return [*_packages(), _memory(), _disk(settings), _embedded()]


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding("doctor.package", True, {"package": package, "version": metadata.version(package)})
        except metadata.PackageNotFoundError:
            yield Finding("doctor.no_package", False, {"package": package})


def _memory() -> Finding:
    free = read_cpu().free_bytes
    return Finding("doctor.memory", free >= LEAST_MEMORY_BYTES, {"free": size(free), "least": size(LEAST_MEMORY_BYTES)})


def _disk(settings: Settings) -> Finding:
    folder = next(path for path in (settings.cache_dir, *settings.cache_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    data: dict[str, object] = {"path": settings.cache_dir, "free": size(free), "least": size(LEAST_DISK_BYTES)}
    return Finding("doctor.disk", free >= LEAST_DISK_BYTES, data)


def _embedded() -> Finding:
    packaged = find_packaged(EMBEDDED.package) is not None
    data: dict[str, object] = {"package": EMBEDDED.package.replace("_", "-"), "repo": EMBEDDED.repo}
    return Finding("doctor.embedded" if packaged else "doctor.from_hub", True, data)

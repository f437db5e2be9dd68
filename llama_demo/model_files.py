"""The commands that bring model files onto this machine or into another format, with their progress on the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from llama_demo.catalog import read_catalog
from llama_demo.errors import InvalidSetting
from llama_demo.messages import Messages, size
from llama_demo.progress_line import ProgressLine
from llama_demo.settings import Settings


def add_convert_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    command.add_argument("source", type=Path, help=words("cli.convert_source"))
    command.add_argument("target", type=Path, help=words("cli.convert_target"))
    command.add_argument("--to", required=True, help=words("cli.convert_to"))
    command.add_argument("--dtype", help=words("cli.convert_dtype"))
    command.add_argument("--quantize", help=words("cli.convert_quantize"))


def run_convert(parsed: argparse.Namespace, words: Messages, say: Callable[[str], None]) -> int:
    """Raises `InvalidSetting`, `TargetExists`, `BadCheckpoint`, `DiskFull`."""
    from llama_demo.checkpoints.convert import convert
    from llama_demo.checkpoints.hf_write import Dtype

    to: Any = _one_of("--to", parsed.to, ("hf", "gguf"))
    dtype: Any = _one_of("--dtype", parsed.dtype or "auto", get_args(Dtype))
    quantization: Any = _one_of("--quantize", parsed.quantize or "q8_0", ("f16", "q8_0", "q4_0"))
    if to == "hf" and parsed.quantize:
        raise InvalidSetting("--quantize", parsed.quantize, "left out: it belongs to --to gguf")
    if to == "gguf" and parsed.dtype:
        raise InvalidSetting("--dtype", parsed.dtype, "left out: it belongs to --to hf")
    with bytes_line(words) as line:
        convert(parsed.source, parsed.target, to=to, dtype=dtype, quantization=quantization, report=line.report)
    written = [parsed.target] if parsed.target.is_file() else list(parsed.target.iterdir())
    say(words("cli.converted", path=parsed.target, size=size(sum(file.stat().st_size for file in written))))
    return 0


def run_download(parsed: argparse.Namespace, settings: Settings, words: Messages, say: Callable[[str], None]) -> int:
    """Raises `UnknownModel`, an `AccessNeeded`, `HubUnavailable`, `DownloadDamaged`, `DiskFull`."""
    from llama_demo import hub
    from llama_demo.entry_files import find_packaged, wanted_files

    catalog, _ = read_catalog("", Path(settings.catalog) if settings.catalog else None)
    entry = catalog.find(parsed.name)
    path = entry.path or find_packaged(entry.package)
    if path is None:
        with bytes_line(words) as line:
            path = hub.download(entry.repo, wanted_files(entry), line.report, revision=entry.revision)
    say(words("cli.downloaded", name=entry.name, path=path))
    return 0


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidSetting(flag, value, f"{', '.join(allowed[:-1])} or {allowed[-1]}")
    return value


def bytes_line(words: Messages) -> ProgressLine:
    """Bytes done, of how many, and how fast."""

    def worded(done: int, total: int, seconds: float) -> str:
        per_second = int(done / max(1e-3, seconds))
        left = (total - done) / max(1, per_second)
        return words("cli.progress", done=size(done), total=size(total), speed=size(per_second), seconds=f"{left:.0f}")

    return ProgressLine(worded)

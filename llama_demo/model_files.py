"""The commands that bring model files onto this machine or into another format, with their progress on the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from llama_demo.catalog import Entry, read_catalog
from llama_demo.errors import InvalidSetting, TargetExists
from llama_demo.messages import Messages, size
from llama_demo.progress_line import ProgressLine
from llama_demo.push_errors import LicenceNotConfirmed
from llama_demo.reasons import Reason
from llama_demo.settings import Settings, add_arguments


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
        raise InvalidSetting("--quantize", parsed.quantize, Reason("expected.belongs", to="--to gguf"))
    if to == "gguf" and parsed.dtype:
        raise InvalidSetting("--dtype", parsed.dtype, Reason("expected.belongs", to="--to hf"))
    with bytes_line(words) as line:
        convert(parsed.source, parsed.target, to=to, dtype=dtype, quantization=quantization, report=line.report)
    say(words("cli.converted", path=parsed.target, size=size(_bytes(parsed.target))))
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


def add_save_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    command.add_argument("name", help=words("cli.save_name"))
    command.add_argument("target", type=Path, help=words("cli.save_target"))
    command.add_argument("--pad-token", default="", help=words("cli.save_pad_token"))
    command.add_argument("--pretraining-tp", type=int, default=0, help=words("cli.save_pretraining_tp"))
    command.add_argument("--push", metavar="REPO", default="", help=words("cli.save_push"))
    command.add_argument("--public-repository", action="store_true", help=words("cli.save_public"))
    command.add_argument("--yes", action="store_true", help=words("cli.save_yes"))
    add_arguments(command, ("catalog", "dtype", "cache_dir"))


def run_save(parsed: argparse.Namespace, settings: Settings, words: Messages, say: Callable[[str], None]) -> int:
    """Raises `InvalidSetting`, `UnknownModel`, `TargetExists`, `InvalidParameter`, `LicenceNotConfirmed`,
    `BadCheckpoint`, `DiskFull`, `PushFailed`, and what fetching a model does."""
    from llama_demo import hub_push
    from llama_demo.model_cache import ModelCache
    from llama_demo.saving import MOST_SLICES, Changes, save

    dtype: Any = settings.dtype
    if dtype.endswith("-bit"):
        raise InvalidSetting("--dtype", dtype, Reason("expected.folder_dtype"))
    if not 0 <= parsed.pretraining_tp <= MOST_SLICES:
        raise InvalidSetting(
            "--pretraining-tp", parsed.pretraining_tp, Reason("expected.whole_number", low=1, high=MOST_SLICES)
        )
    catalog, name = read_catalog(parsed.name, Path(settings.catalog) if settings.catalog else None)
    entry = catalog.find(name)
    if parsed.target.exists():
        raise TargetExists(str(parsed.target))
    if parsed.push:
        hub_push.check_name(parsed.push)
        _confirm_push(entry, parsed, words, say)
    changes = Changes(dtype, parsed.pad_token, parsed.pretraining_tp)
    with bytes_line(words) as line:
        cache = ModelCache(settings.cache_dir / "models")
        source = cache.original(entry, lambda step: line.report(step.done_bytes or 0, step.total_bytes or 0))
        save(entry, source, parsed.target, changes, words, report=line.report)
    say(words("cli.converted", path=parsed.target, size=size(_bytes(parsed.target))))
    if parsed.push:
        with bytes_line(words) as line:
            private = not parsed.public_repository
            address = hub_push.push(parsed.target, parsed.push, f"Add {entry.title}", line.report, private=private)
        say(words("cli.pushed", address=address))
    return 0


def _confirm_push(entry: Entry, parsed: argparse.Namespace, words: Messages, say: Callable[[str], None]) -> None:
    """Asks on a terminal. Raises `LicenceNotConfirmed`, or `InvalidSetting`, where nobody says yes."""
    from llama_demo.saving import to_confirm

    if parsed.yes:
        return
    licence = to_confirm(entry)
    if licence is not None:
        say(words("cli.push_warning", name=entry.title, licence=licence.text or words("card.licence_unknown")))
    seen = words("cli.push_public" if parsed.public_repository else "cli.push_private")
    if sys.stdin.isatty() and input(words("cli.push_question", repo=parsed.push, seen=seen)).strip().lower() == "y":
        return
    if licence is not None:
        raise LicenceNotConfirmed(entry.title, licence.name, licence.link)
    raise InvalidSetting("--push", parsed.push, Reason("expected.confirmed"))


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidSetting(flag, value, Reason("expected.either", others=allowed[:-1], last=allowed[-1]))
    return value


def bytes_line(words: Messages) -> ProgressLine:
    """Bytes done, of how many, and how fast."""

    def worded(done: int, total: int, seconds: float) -> str:
        per_second = int(done / max(1e-3, seconds))
        left = (total - done) / max(1, per_second)
        return words("cli.progress", done=size(done), total=size(total), speed=size(per_second), seconds=f"{left:.0f}")

    return ProgressLine(worded)

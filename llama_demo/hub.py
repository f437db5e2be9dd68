"""Fetches a repository's files from the Hugging Face Hub into its cache, telling how far it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_demo.errors import DiskFull, HubUnavailable

ETAG_TIMEOUT_SECONDS = 10.0


def download(
    repo: str,
    allow: Sequence[str],
    report: Callable[[int, int], None],
    *,
    revision: str = "",
    cache_dir: Path | None = None,
) -> Path:
    """The folder of `repo`'s snapshot (`revision`, or the newest) with the files that match `allow`; resumes what was
    cut off.

    `report(done_bytes, total_bytes)` is called from download threads. What is cached already is used without the
    network. Raises `HubUnavailable` or `DiskFull`.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError, HfHubHTTPError, LocalEntryNotFoundError

    options: dict[str, Any] = {
        "allow_patterns": list(allow),
        "revision": revision or None,
        "etag_timeout": ETAG_TIMEOUT_SECONDS,
        "cache_dir": cache_dir,
    }
    try:
        files = snapshot_download(repo, dry_run=True, **options)
        needed = sum(file.file_size or 0 for file in files if file.will_download)
        _check_disk(cache_dir, needed)
        return Path(snapshot_download(repo, tqdm_class=_reporting_bar(report, needed), **options))
    except DryRunError:
        return _cached(repo, options)
    except LocalEntryNotFoundError:
        raise HubUnavailable(repo, "the Hub cannot be reached") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise HubUnavailable(repo, f"the Hub answered {status}" if status else "the Hub gave no answer") from None
    except (httpx2.HTTPError, ConnectionError, TimeoutError):
        raise HubUnavailable(repo, "the connection broke off") from None


def cached(repo: str, allow: Sequence[str], revision: str = "", *, cache_dir: Path | None = None) -> Path | None:
    """The folder of a snapshot whose weights are here whole, without a look at the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                repo, allow_patterns=list(allow), revision=revision or None, cache_dir=cache_dir, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        return None
    whole = all(
        any(folder.glob(pattern)) for pattern in allow if not pattern.endswith((".json", ".jinja", "*", ".chk"))
    )
    return folder if whole and _has_all_shards(folder) else None


def _has_all_shards(folder: Path) -> bool:
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        if not all((folder / str(name)).is_file() for name in names):
            return False
    return True


def _cached(repo: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        raise HubUnavailable(repo, "the Hub cannot be reached") from None


def _check_disk(cache_dir: Path | None, needed_bytes: int) -> None:
    from huggingface_hub import constants

    folder = Path(cache_dir or constants.HF_HUB_CACHE)
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("."))
    free = shutil.disk_usage(existing).free
    if needed_bytes > free:
        raise DiskFull(str(folder), needed_bytes, free)


def _reporting_bar(report: Callable[[int, int], None], total_bytes: int) -> type[Any]:
    """A tqdm class for `snapshot_download`, which counts what reached the disk in the bar it calls Reconstructing."""
    from huggingface_hub.utils.tqdm import tqdm

    class ReportingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = str(kwargs.get("desc", "")).startswith("Reconstructing")
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Silent()})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self._counts_bytes:
                report(int(self.n), max(total_bytes, int(self.n)))
            return shown

    return ReportingBar


class _Silent:
    """A bar's output that goes nowhere: the page shows the progress."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

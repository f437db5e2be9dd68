"""Fetches a repository's files from the Hugging Face Hub into its cache, telling how far it is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llama_demo.errors import DiskFull, HubUnavailable, LlamaDemoError
from llama_demo.hub_errors import (
    AccessNeeded,
    AccessNotRequested,
    AccessPending,
    AccessRejected,
    DownloadDamaged,
    NoToken,
    TokenInvalid,
    TokenLacksScope,
)
from llama_demo.hub_fetch import RemoteFile, fetch, part_of

ETAG_TIMEOUT_SECONDS = 10.0
UNAUTHORIZED = 401
TOKENS = "https://huggingface.co/settings/tokens"
LARGE_BYTES = 1_000_000
"""Files from this size on are fetched so that they can be resumed."""

_REFUSALS: Mapping[str, type[AccessNeeded]] = {
    "not in the authorized list": AccessNotRequested,
    "has been reset": AccessNotRequested,
    "awaiting a review": AccessPending,
    "has been rejected": AccessRejected,
}


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
    network. Raises `HubUnavailable`, an `AccessNeeded`, `DownloadDamaged` or `DiskFull`.
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
    here = total = 0

    def tell(done: int, total: int) -> None:
        nonlocal here
        here = done
        report(done, total)

    try:
        files = snapshot_download(repo, dry_run=True, **options)
        if not files:
            raise HubUnavailable(repo, f"it has no {' or '.join(allow)}")
        wanted = [file for file in files if file.will_download]
        total = sum(file.file_size or 0 for file in wanted)
        done = _fetch_large(repo, wanted, total, tell, cache_dir)
        bar = _reporting_bar(lambda more: tell(min(total, done + more), total))
        folder = Path(snapshot_download(repo, tqdm_class=bar, **options))
        tell(total, total)
        return folder
    except (DryRunError, LocalEntryNotFoundError) as error:
        return _cached(repo, options, error)
    except HfHubHTTPError as error:
        raise _worded(repo, error) from None
    except DownloadDamaged as error:
        raise DownloadDamaged(repo, error.file) from None
    except (httpx2.HTTPError, ConnectionError, TimeoutError):
        raise HubUnavailable(repo, "the connection broke off; what came is kept") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(str(_root(cache_dir)), total - here, _free_bytes(_root(cache_dir))) from None


def sign_in(token: str, *, remember: bool = False) -> str:
    """Uses `token` for every later call of this process, and with `remember` of later ones too, as `hf auth login`
    does; returns whose it is. Raises `TokenInvalid`, `HubUnavailable`."""
    import httpx2
    from huggingface_hub import HfApi, login
    from huggingface_hub.errors import HfHubHTTPError

    token = token.strip()
    try:
        who = str(HfApi().whoami(token=token or False, cache=False)["name"])
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) == UNAUTHORIZED:
            raise TokenInvalid("", TOKENS) from None
        raise HubUnavailable("the Hub", "it did not answer as it should") from None
    except (httpx2.HTTPError, ConnectionError, TimeoutError):
        raise HubUnavailable("the Hub", "the Hub cannot be reached") from None
    except ValueError:
        raise TokenInvalid("", TOKENS) from None
    os.environ["HF_TOKEN"] = token
    if remember:
        login(token=token, add_to_git_credential=False, skip_if_logged_in=False)
    return who


def check_access(repo: str) -> None:
    """Returns where `repo` may be downloaded. Raises an `AccessNeeded`, or `HubUnavailable`."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().auth_check(repo)
    except HfHubHTTPError as error:
        raise _worded(repo, error) from None
    except (httpx2.HTTPError, ConnectionError, TimeoutError):
        raise HubUnavailable(repo, "the Hub cannot be reached") from None


def _worded(repo: str, error: Any) -> LlamaDemoError:
    """The Hub's refusal as one of ours. Why a gated repository is closed stands only in the words of its answer: what
    is not recognised stays general."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = getattr(error.response, "status_code", None)
    said, link = str(error.server_message or "").lower(), f"https://huggingface.co/{repo}"
    if status == 401 and ("invalid credentials" in said or "expired" in said):
        return TokenInvalid(repo, link)
    if "fine-grained token" in said:
        return TokenLacksScope(repo, link)
    if isinstance(error, GatedRepoError):
        if status == 401:
            return NoToken(repo, link)
        kinds = {words: kind for words, kind in _REFUSALS.items() if words in said}
        return next(iter(kinds.values()), AccessNeeded)(repo, link)
    if isinstance(error, RepositoryNotFoundError):
        return HubUnavailable(repo, "there is no such repository, or it is private")
    return HubUnavailable(repo, f"the Hub answered {status}" if status else "the Hub gave no answer")


def _fetch_large(
    repo: str, files: Sequence[Any], total: int, report: Callable[[int, int], None], cache_dir: Path | None
) -> int:
    """Fetches the large files, after a look at the disk; returns how many bytes of `total` are here then."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    root = _root(cache_dir)
    blobs = root / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    large = []
    for file in files:
        if (file.file_size or 0) >= LARGE_BYTES:
            url = hf_hub_url(repo, file.filename, revision=file.commit_hash)
            facts = get_hf_file_metadata(url, timeout=ETAG_TIMEOUT_SECONDS)
            if facts.etag and facts.size:
                large.append((url, RemoteFile(facts.etag, facts.size, facts.location)))
    here = sum(part.stat().st_size for _, known in large if (part := part_of(blobs, known.etag)).is_file())
    _check_disk(root, total - here)
    done = 0
    for url, known in large:
        fetch(url, known, blobs, partial(_report_from, report, done, total))
        done += known.size
    return done


def _report_from(report: Callable[[int, int], None], begun: int, total: int, now: int) -> None:
    report(begun + now, total)


def is_repository(name: str) -> bool:
    """Whether `name` is OWNER/NAME, as the Hub names repositories. Without an owner it would take the token's own."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not marked so

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


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
    return folder if whole and _has_all_shards(folder, allow) else None


def _has_all_shards(folder: Path, allow: Sequence[str]) -> bool:
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        if not all((folder / str(name)).is_file() for name in names):
            return False
    checklist = folder / "checklist.chk"
    if checklist.name not in allow or not checklist.is_file():
        return True
    listed = checklist.read_text(encoding="utf-8", errors="replace")
    return all((folder / name).is_file() for name in re.findall(r"consolidated\.\d\d\.pth", listed))


def _cached(repo: str, options: dict[str, Any], error: BaseException) -> Path:
    """What is here already, where the Hub gave nothing; else why it did not, which `error` may have as its cause."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        pass
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            raise _worded(repo, cause) from None
        cause = cause.__cause__ or cause.__context__
    raise HubUnavailable(repo, "the Hub cannot be reached") from None


def _root(cache_dir: Path | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE)


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free = _free_bytes(folder)
    if needed_bytes > free:
        raise DiskFull(str(folder), needed_bytes, free)


def _free_bytes(folder: Path) -> int:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("."))
    return shutil.disk_usage(existing).free


def _reporting_bar(report: Callable[[int], None]) -> type[Any]:
    """A tqdm class for `snapshot_download`, which counts what reached the disk in the bar it calls Reconstructing."""
    from huggingface_hub.utils.tqdm import tqdm

    class ReportingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = str(kwargs.get("desc", "")).startswith("Reconstructing")
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Silent()})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self._counts_bytes:
                report(int(self.n))
            return shown

    return ReportingBar


class _Silent:
    """A bar's output that goes nowhere: the page shows the progress."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

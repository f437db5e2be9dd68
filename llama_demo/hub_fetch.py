"""One large file from the Hub into the Hub's cache: what was cut off goes on where it ended, in another process too.

`huggingface_hub` resumes only within one call, and throws away what it has when that fails. So large files are fetched
here, under names of our own, and given to its cache when their hash is right.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from llama_demo.hub_errors import DownloadDamaged

if sys.platform != "win32":
    import fcntl

_READ_AT_ONCE = 2**22
_SHA256_DIGITS, _SHA1_DIGITS = 64, 40


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the Hub says of a file: its hash, its bytes, and where it really lies."""

    etag: str
    size: int
    location: str


def part_of(blobs: Path, etag: str) -> Path:
    """Where a file is kept until it is whole."""
    return blobs / f"{etag}.llama-demo-part"


def fetch(url: str, facts: RemoteFile, blobs: Path, tell: Callable[[int], None]) -> None:
    """Puts the file at `url` into `blobs`, under its hash; `tell` gets how many of its bytes are here.

    Raises `DownloadDamaged` where the hash is another one (what came is thrown away then), and what `huggingface_hub`
    raises.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    etag, size, location = facts.etag, facts.size, facts.location
    target, part = blobs / etag, part_of(blobs, etag)
    blobs.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at it: then it is whole when our turn comes
        if target.exists():
            part.unlink(missing_ok=True)
            return
        here = file.seek(0, 2)
        if here > size:
            file.truncate(0)
            here = 0
        tell(here)
        if here < size:
            headers = dict(build_hf_headers())
            if urlsplit(location).netloc != urlsplit(url).netloc:
                headers.pop("authorization", None)  # the store that the Hub redirects to has no business with it
            bar = _telling_bar(tell, here)
            http_get(location, file, resume_size=here, headers=headers, expected_size=size, tqdm_class=bar)
        file.flush()
        if not is_whole(part, etag):
            part.unlink()
            raise DownloadDamaged(target.name[:12], url.rsplit("/", 1)[-1])
        part.replace(target)


def is_whole(path: Path, etag: str) -> bool:
    """Whether the file's hash is `etag`: SHA-256 for large files, git's own SHA-1 for small ones; anything else is no
    hash, and cannot be checked."""
    if len(etag) == _SHA256_DIGITS:
        digest = hashlib.sha256()
    elif len(etag) == _SHA1_DIGITS:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return True
    with path.open("rb") as file:
        _update(digest, file)
    return bool(digest.hexdigest() == etag.lower())


def _update(digest: Any, file: BinaryIO) -> None:
    while content := file.read(_READ_AT_ONCE):
        digest.update(content)


def _telling_bar(tell: Callable[[int], None], start: int) -> type[Any]:
    """A tqdm class that tells instead of drawing."""
    from huggingface_hub.utils.tqdm import tqdm

    class TellingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._here = start
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self._here += int(n or 0)
            tell(self._here)
            return None

    return TellingBar

"""Files and folders that appear whole or not at all, whatever ends the process that writes them.

It knows nothing of what is written.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llama_demo.errors import DiskFull

if sys.platform != "win32":
    import fcntl

_LOCK = ".writing"


@contextmanager
def replacing(target: Path, needed_bytes: int) -> Iterator[BinaryIO]:
    """A new file that takes the name `target` once it is whole, and leaves nothing behind where it is not.

    Raises `DiskFull` at once when `needed_bytes` are not free, and when the disk fills up meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, glob.escape(target.name))
    _check_room(target, needed_bytes)
    file = _partial(target)
    partial = Path(file.name)
    try:
        with _full_disk_named(target, needed_bytes):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform != "win32":
                    partial.replace(target)
            if sys.platform == "win32":  # there a file that is open keeps its name
                partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _partial(target: Path) -> BinaryIO:
    """A new file beside `target`, locked for as long as it is open, so that others see that somebody writes it."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        file = partial.open("xb")
        _lock(file)
        if partial.exists():
            return file
        file.close()  # another process took it for abandoned in the moment before it was locked


@contextmanager
def replacing_folder(target: Path, needed_bytes: int) -> Iterator[Path]:
    """A new folder that takes the name `target` once it is whole, and leaves nothing behind where it is not.

    Raises `DiskFull` as `replacing` does, and `FileExistsError` where `target` is there and not empty.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, glob.escape(target.name))
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    _check_room(target, needed_bytes)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    lock = (partial / _LOCK).open("xb")
    try:
        with lock:
            _lock(lock)
            with _full_disk_named(target, needed_bytes):
                yield partial
            (partial / _LOCK).unlink()
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_abandoned(folder: Path, name: str = "*") -> None:
    """Removes what a killed process left half written in `folder` under `name`: its lock went with the process.
    Windows removes no file that is open."""
    for partial in folder.glob(f".{name}.*.partial"):
        held = partial / _LOCK if partial.is_dir() else partial
        with suppress(OSError):
            if held.exists():
                with held.open("rb") as file:
                    if sys.platform != "win32":
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()


def _check_room(target: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < needed_bytes:
        raise DiskFull(str(target), needed_bytes, free_bytes)


@contextmanager
def _full_disk_named(target: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(target), needed_bytes, shutil.disk_usage(target.parent).free) from error
        raise


def _lock(file: BinaryIO) -> None:
    """Shows others that somebody writes here, for as long as `file` is open."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks: then nobody takes it for abandoned either
            fcntl.flock(file, fcntl.LOCK_EX)

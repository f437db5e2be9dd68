"""The trained heads that are kept: one file each, by name. Two of one name never meet.

Where visitors are told apart each has a shelf of its own, which nobody else sees: so many heads, each so large, gone
when they have not been used for a while. The owner alone puts one on the shelf that is everybody's.
"""

from __future__ import annotations

import difflib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_demo.classify import head as heads
from llama_demo.classify.head import SUFFIX, Head
from llama_demo.errors import NameTaken, UnknownClassifier
from llama_demo.reasons import Reason
from llama_demo.visitor_errors import HeadTooLarge, TooManyHeads
from llama_demo.visitors import Visitor

SHELVES, OWNER = "visitors", "owner"
MOST_HEADS = 10
"""On a visitor's shelf."""
MOST_HEAD_BYTES = 20_000_000
"""Of one of them: enough for 200 labels on the largest Llama-2."""
KEPT_SECONDS = 24 * 3600.0
"""After a visitor's last use of it."""
EXPIRY_SECONDS = 600.0
"""So often is looked for what has expired, whether anybody uses the store or not."""
MOST_KEPT = 1000
"""On all visitors' shelves together: beyond it those that have not been used for longest go first."""


class Heads:
    """The heads in `folder`, which is made when the first one is kept; from any thread. `private` tells visitors apart;
    else, and where a `visitor` is left out, everything is on the one shelf that is everybody's. Close it: what is
    private expires on a thread of its own."""

    def __init__(self, folder: Path, *, private: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._private = private
        self._clock = clock
        self._lock = threading.Lock()
        self._reserved: set[Path] = set()
        self._closed = threading.Event()
        self.expire()
        if private:
            threading.Thread(target=self._keep_expiring, name="heads", daemon=True).start()

    def close(self) -> None:
        """Nothing expires any more unless the store is used."""
        self._closed.set()

    def names(self, visitor: Visitor | None = None) -> list[str]:
        """What `visitor` may use."""
        self.expire()
        return sorted({*_names(self._shelf(visitor)), *_names(self._folder)})

    def own(self, visitor: Visitor | None = None) -> list[str]:
        """What `visitor` may remove."""
        return self.names(visitor) if visitor is None or visitor.is_owner else _names(self._shelf(visitor))

    def path(self, name: str, visitor: Visitor | None = None) -> Path:
        """Where `visitor`'s head of that name is, or would be."""
        return self._shelf(visitor) / f"{heads.check_name(name)}{SUFFIX}"

    def find(self, name: str, visitor: Visitor | None = None) -> Head:
        """Raises `UnknownClassifier` with the nearest name, if there is any, `BadHead`, `UntrainedHead`."""
        return heads.load(self._used(name, visitor))

    def file(self, name: str, visitor: Visitor | None = None) -> Path:
        """The file of a head that is there. Raises as `find`, for one that cannot be read too."""
        self.find(name, visitor)
        return self._used(name, visitor)

    @contextmanager
    def reserved(self, name: str, visitor: Visitor | None = None) -> Iterator[Path]:
        """The file for a head that is being made; nobody else gets the name meanwhile. Raises `NameTaken`,
        `TooManyHeads`."""
        self.expire()
        path = self.path(name, visitor)
        with self._lock:
            if path in self._reserved or path.exists() or self.path(name).exists():
                raise NameTaken(name)
            taken = {
                *path.parent.glob(f"[!.]*{SUFFIX}"),
                *(other for other in self._reserved if other.parent == path.parent),
            }
            if self._limited(path) and len(taken) >= MOST_HEADS:
                raise TooManyHeads(MOST_HEADS)
            self._reserved.add(path)
        try:
            yield path
        finally:
            with self._lock:
                self._reserved.discard(path)

    def add(self, source: Path, title: str, name: str = "", visitor: Visitor | None = None) -> Head:
        """Keeps a copy of a head's file, under `name` if that is given. Raises as `heads.load` and `reserved`, and
        `HeadTooLarge`, `DiskFull`."""
        size = source.stat().st_size
        if self._limited(self._shelf(visitor) / title) and size > MOST_HEAD_BYTES:
            raise HeadTooLarge(size, MOST_HEAD_BYTES)
        read = heads.load(source, title)
        kept = heads.renamed(read, name) if name else read
        with self.reserved(kept.name, visitor) as path:
            heads.save(kept, path)
        return kept

    def remove(self, name: str, visitor: Visitor | None = None) -> None:
        """Raises `UnknownClassifier`, and `OwnerOnly` for one that is everybody's."""
        path = self._used(name, visitor)
        if visitor is not None and path.parent == self._folder:
            visitor.check_owner()
        path.unlink(missing_ok=True)

    def publish(self, name: str, visitor: Visitor) -> None:
        """Puts the owner's own head on everybody's shelf. Raises `OwnerOnly`, `UnknownClassifier`, `NameTaken`."""
        visitor.check_owner()
        path = self._used(name, visitor)
        with self._lock:
            if self.path(name).exists():
                raise NameTaken(name)
            path.replace(self.path(name))

    def published(self, name: str) -> bool:
        """Whether it is everybody's."""
        return name in _names(self._folder)

    def expire(self) -> None:
        """Removes what visitors have not used for `KEPT_SECONDS`, and what is beyond `MOST_KEPT`."""
        found = []
        for path in (self._folder / SHELVES).glob(f"*/*{SUFFIX}"):
            with suppress(OSError):  # another thread has just removed it
                if self._limited(path):
                    found.append((path.stat().st_mtime, path))
        found.sort(reverse=True)
        oldest = self._clock() - KEPT_SECONDS
        for place, (used, path) in enumerate(found):
            if place >= MOST_KEPT or used < oldest:
                with suppress(OSError):  # what cannot be removed is tried again the next time
                    path.unlink(missing_ok=True)
                    path.parent.rmdir()

    def _keep_expiring(self) -> None:
        while not self._closed.wait(EXPIRY_SECONDS):
            self.expire()

    def _shelf(self, visitor: Visitor | None) -> Path:
        if visitor is None or not self._private:
            return self._folder
        named = OWNER if visitor.is_owner else hashlib.sha256(visitor.key.encode()).hexdigest()[:32]
        return self._folder / SHELVES / named

    def _limited(self, path: Path) -> bool:
        return path.parent not in (self._folder, self._folder / SHELVES / OWNER)

    def _used(self, name: object, visitor: Visitor | None) -> Path:
        """The file of that name, from now on used last now. Raises `UnknownClassifier`."""
        names = self.names(visitor)
        if not isinstance(name, str) or name not in names:
            near = difflib.get_close_matches(str(name)[:200], names, n=1, cutoff=0.0)
            problem = Reason("classifier.near", nearest=near[0]) if near else Reason("classifier.none")
            raise UnknownClassifier(str(name), problem)
        path = self.path(name, visitor)
        if not path.exists():
            return self.path(name)
        with suppress(OSError):
            path.touch()
        return path


def _names(folder: Path) -> list[str]:
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"[!.]*{SUFFIX}"))

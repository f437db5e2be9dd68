"""The trained heads that are kept: one file each, by name. Two of one name never meet."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_demo.classify import head as heads
from llama_demo.classify.head import SUFFIX, Head
from llama_demo.errors import LlamaDemoError, NameTaken, UnknownClassifier


class Heads:
    """The heads in `folder`, which is made when the first one is kept; from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._reserved: set[str] = set()

    def names(self) -> list[str]:
        return sorted(file.name.removesuffix(SUFFIX) for file in self._folder.glob(f"[!.]*{SUFFIX}"))

    def all(self) -> list[Head]:
        """Every head that can be read; a file that is none is left out."""
        found = []
        for name in self.names():
            try:
                found.append(self.find(name))
            except LlamaDemoError:
                continue
        return found

    def path(self, name: str) -> Path:
        return self._folder / f"{heads.check_name(name)}{SUFFIX}"

    def find(self, name: str) -> Head:
        """Raises `UnknownClassifier` with the nearest name there is, `BadHead`, `UntrainedHead`."""
        names = self.names()
        if not isinstance(name, str) or name not in names:
            near = difflib.get_close_matches(str(name)[:200], names, n=1, cutoff=0.0)
            raise UnknownClassifier(str(name), near[0] if near else "-")
        return heads.load(self.path(name))

    @contextmanager
    def reserved(self, name: str) -> Iterator[Path]:
        """The file for a head that is being made; nobody else gets the name meanwhile. Raises `NameTaken`."""
        path = self.path(name)
        with self._lock:
            if name in self._reserved or path.exists():
                raise NameTaken(name)
            self._reserved.add(name)
        try:
            yield path
        finally:
            with self._lock:
                self._reserved.discard(name)

    def add(self, source: Path, title: str, name: str = "") -> Head:
        """Keeps a copy of a head's file, under `name` if that is given. Raises as `heads.load`, and `NameTaken`,
        `DiskFull`."""
        read = heads.load(source, title)
        kept = heads.renamed(read, name) if name else read
        with self.reserved(kept.name) as path:
            heads.save(kept, path)
        return kept

    def remove(self, name: str) -> None:
        """Raises `UnknownClassifier`."""
        if name not in self.names():
            self.find(name)
        self.path(name).unlink(missing_ok=True)

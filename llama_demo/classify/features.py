"""What the frozen backbone makes of wrapped texts: one vector each, kept in memory so that none is computed twice.

It knows engines and ids, and nothing of labels.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_demo.engines import Engine

CHUNK_TEXTS = 64
"""Between two chunks the progress is told and a cancel is heard."""

Key = tuple[str, bytes]
Told = Callable[[int, int], bool]
"""Told how many of how many texts are done; answers whether to go on."""


class Features:
    """Vectors of at most `most_bytes`, the least recently used ones forgotten first; from any thread.

    `backbone` names the weights that a vector is of: the same ids give another vector on another model.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def embed(
        self, engine: Engine, backbone: str, texts: Sequence[Sequence[int]], told: Told
    ) -> NDArray[np.float32] | None:
        """float32 [len(texts), hidden], in order; None where `told` ended it. Blocks, and raises as `Engine.embed`."""
        keys = [_key(backbone, ids) for ids in texts]
        found = self._find(keys)
        wanted = {key: ids for key, ids in zip(keys, texts, strict=True) if key not in found}
        todo = sorted(wanted, key=lambda key: len(wanted[key]))
        go_on = told(len(texts) - len(todo), len(texts))
        for start in range(0, len(todo), CHUNK_TEXTS):
            if not go_on:
                return None
            chunk = todo[start : start + CHUNK_TEXTS]
            made = engine.embed([wanted[key] for key in chunk])
            found.update(zip(chunk, made, strict=True))
            self._keep(chunk, made)
            go_on = told(len(texts) - len(todo) + start + len(chunk), len(texts))
        return np.stack([found[key] for key in keys])

    def _find(self, keys: Sequence[Key]) -> dict[Key, NDArray[np.float32]]:
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def _keep(self, keys: Sequence[Key], made: NDArray[np.float32]) -> None:
        with self._lock:
            for key, vector in zip(keys, made, strict=True):
                if key not in self._kept:
                    self._kept[key] = vector.copy()
                    self._bytes += vector.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _key(backbone: str, ids: Sequence[int]) -> Key:
    return backbone, hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()

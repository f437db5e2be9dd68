"""Where glibc puts a model's weights, so that their memory goes back to the system when the model does.

A block as large as a threshold gets pages of its own, which go back at once when it is freed. What is smaller shares a
heap, whose places come back in part only. glibc raises the threshold by itself as large blocks come and go: good for
what lives for a step, bad for weights. With another C library nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt(3)'s settings."""
_LEAST_BYTES = 128 * 2**10
"""What glibc begins with."""
_MOST_BYTES = 4 * 2**20
"""More than the tensors of a step of many visitors; of larger ones the heap would keep too much between two texts."""

_lock = threading.Lock()
_loads = 0


@contextmanager
def own_pages() -> Iterator[None]:
    """Each large block made within has pages of its own. Afterwards they go to the heap, so that a step's tensors need
    no new pages each time."""
    global _loads  # noqa: PLW0603 - the setting is the process's
    with _lock:
        _loads += 1
        _set_threshold(_LEAST_BYTES)
    try:
        yield
    finally:
        with _lock:
            _loads -= 1
            if not _loads:
                _set_threshold(_MOST_BYTES)


def trim() -> None:
    """Gives the places of blocks that are gone back to the system, where whole pages are free."""
    if (library := _library()) is not None:
        library.malloc_trim(0)


def _set_threshold(threshold_bytes: int) -> None:
    """The heap's end is given back where twice as much is free there, as glibc has it too."""
    if (library := _library()) is not None:
        library.mallopt(_MMAP_THRESHOLD, threshold_bytes)
        library.mallopt(_TRIM_THRESHOLD, 2 * threshold_bytes)


def _library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if library is not None and hasattr(library, "malloc_trim") else None

"""How much strangers upload: so much a minute each, and nothing where the disk is nearly full. It sees no file."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llama_demo.budgets import Allowance, Budgets
from llama_demo.visitor_errors import NoRoomForUploads
from llama_demo.visitors import Visitor

A_MINUTE = 20
BYTES_A_MINUTE = 20_000_000
"""Of one visitor. The largest file that is taken may be sent at once, and then after a minute again."""
SPARE_BYTES = 2_000_000_000
"""That much of the disk is never filled with uploads: models, classifiers and whatever else is there need it."""


class Uploads:
    """Belongs to one event loop."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`folder` is on the disk where they go."""
        self._folder, self._clock = folder or Path(tempfile.gettempdir()), clock
        self._budgets = Budgets(Allowance(1, 1, A_MINUTE, BYTES_A_MINUTE))

    def begin(self, visitor: Visitor) -> None:
        """Raises `TooManyRequests`, `NoRoomForUploads`."""
        if visitor.is_owner:
            return
        if shutil.disk_usage(self._folder).free < SPARE_BYTES:
            raise NoRoomForUploads()
        self._budgets.take(visitor, self._clock())

    def end(self, visitor: Visitor, sent_bytes: int) -> None:
        """Counts what was sent, whether it was kept or cut off."""
        if not visitor.is_owner:
            self._budgets.spend(visitor, sent_bytes, self._clock())

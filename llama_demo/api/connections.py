"""Bounds on the connections themselves: how many, how long one may take to ask, how long the last ones may stay.

It reaches into uvicorn, which has no setting for how soon a request's head must have come.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

CONNECTIONS = 2048
"""Beyond these, a connection hears at once that there are too many."""
FILES_BESIDE = 256
"""Files that the app itself may have open, beside its connections."""
HEAD_SECONDS = 15.0
"""A request's first line and its headers must have come within this time."""
KEEP_SECONDS = 60
"""A connection may be idle for so long between two requests: browsers and programs come back to theirs."""
GOODBYE_SECONDS = 3
"""At the end, open streams are cut off after this time."""


def bound_connections(server: Any) -> None:
    """Bounds what `server`, uvicorn's, accepts from now on."""
    config = server.config
    config.limit_concurrency = min(CONNECTIONS, _raise_file_limit() - FILES_BESIDE)
    config.timeout_keep_alive = KEEP_SECONDS
    config.timeout_graceful_shutdown = GOODBYE_SECONDS
    config.http_protocol_class = timed(config.http_protocol_class, HEAD_SECONDS)


def _raise_file_limit() -> int:
    """Every connection is an open file, and systems allow few of them unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 4 * FILES_BESIDE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def timed(protocol: type[Any], seconds: float) -> type[Any]:
    """uvicorn's `protocol`, which closes a connection that has not sent a whole request's head within `seconds`.

    Where a time is up the loop goes around once more before the connection is closed: while it was busy with others the
    request may have come, and not have been read.
    """

    class Timed(protocol):  # type: ignore[misc]
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._time()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop()
            super().connection_lost(error)

        def timeout_keep_alive_handler(self) -> None:
            self.timeout_keep_alive_task = self.loop.call_later(0, super().timeout_keep_alive_handler)

        def _time(self) -> None:
            """Runs while no request is under way: from the first byte on, or from none at all."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._late)

        def _late(self) -> None:
            self._timer = self.loop.call_later(0, self.transport.abort)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Timed

"""Bounds on the connections themselves: how many, how long one may take to ask and to listen, and to end at last.

It reaches into uvicorn, which has no setting for how soon a request's head must have come, or an answer be taken.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

CONNECTIONS = 2048
"""Beyond these, a connection hears at once that there are too many."""
FILES_BESIDE = 256
"""Files that the app itself may have open, beside its connections."""
HEAD_SECONDS = 15.0
"""A request's first line and its headers must have come within this time."""
STALL_SECONDS = 30.0
"""Whoever has taken nothing of an answer for this time is not reading it."""
KEEP_SECONDS = 60
"""A connection may be idle for so long between two requests: browsers and programs come back to theirs."""
GOODBYE_SECONDS = 3
"""At the end, open streams are cut off after this time."""
ANSWERS_OF_PAGE = ("/gradio_api/queue/data", "/gradio_api/call/")
"""Streams that Gradio cuts off at once where the page closes, each open only while an answer is on its way over it."""


def bound_connections(server: Any) -> None:
    """Bounds what `server`, uvicorn's, accepts from now on."""
    config = server.config
    config.limit_concurrency = min(CONNECTIONS, _raise_file_limit() - FILES_BESIDE)
    config.timeout_keep_alive = KEEP_SECONDS
    config.timeout_graceful_shutdown = GOODBYE_SECONDS
    config.http_protocol_class = timed(config.http_protocol_class, HEAD_SECONDS, STALL_SECONDS)


def tell_to_the_end(server: Any, seconds: float) -> None:
    """Returns when every answer of the page that `server` sends has been sent whole, after `seconds` at most."""
    deadline = time.monotonic() + seconds
    while any(map(_answers, list(server.server_state.connections))) and time.monotonic() < deadline:
        time.sleep(0.05)


def _answers(connection: Any) -> bool:
    cycle = connection.cycle
    return cycle is not None and not cycle.response_complete and cycle.scope["path"].startswith(ANSWERS_OF_PAGE)


def _raise_file_limit() -> int:
    """Every connection is an open file, and systems allow few of them unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 4 * FILES_BESIDE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def timed(protocol: type[Any], head_seconds: float, stall_seconds: float) -> type[Any]:
    """uvicorn's `protocol`, which closes a connection that has not sent a whole request's head within `head_seconds`,
    and one that takes nothing of what is sent to it for `stall_seconds`: then whatever answers it ends, too.

    Where a time is up the loop goes around once more before the connection is closed: while it was busy with others the
    request may have come, and not have been read.
    """

    class Timed(protocol):  # type: ignore[misc]
        _timer: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            transport.set_write_buffer_limits(high=0)  # so that writing pauses whenever the reader is behind
            super().connection_made(transport)
            self._time()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop()
            self._taken()
            super().connection_lost(error)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait_for_reader()

        def resume_writing(self) -> None:
            self._taken()
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            self.timeout_keep_alive_task = self.loop.call_later(0, super().timeout_keep_alive_handler)

        def _time(self) -> None:
            """Runs while no request is under way: from the first byte on, or from none at all."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(head_seconds, self._late)

        def _late(self) -> None:
            self._timer = self.loop.call_later(0, self.transport.abort)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _wait_for_reader(self) -> None:
            self._stalled = self.loop.call_later(stall_seconds, self._look, self.transport.get_write_buffer_size())

        def _look(self, behind_bytes: int) -> None:
            """Goes on waiting for a slow reader, and for none that has taken nothing."""
            if self.transport.get_write_buffer_size() < behind_bytes:
                self._wait_for_reader()
            else:
                self.transport.abort()

        def _taken(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

    return Timed

"""The servers of all remote entries: one loop on one thread, on which each is watched and all requests run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping

from llama_demo.catalog import Entry
from llama_demo.engines.remote import Patience, RemoteServer
from llama_demo.errors import Closing

_BEGUN_SECONDS = 0.05
"""What has just been started is let begin before it is cancelled: the HTTP client warns of what never has."""


class Remotes:
    """`environment` holds the servers' tokens. Nothing is started where no entry is remote."""

    def __init__(self, entries: Iterable[Entry], environment: Mapping[str, str], patience: Patience) -> None:
        self._servers: dict[str, RemoteServer] = {}
        self._thread: threading.Thread | None = None
        remote = [entry for entry in entries if entry.format == "remote"]
        if not remote:
            return
        self._loop = asyncio.new_event_loop()
        for entry in remote:
            token = environment.get(entry.token_variable, "")
            self._servers[entry.name] = RemoteServer(entry, token, self._loop, patience)
        self._watching = [self._loop.create_task(server.watch()) for server in self._servers.values()]
        self._thread = threading.Thread(target=self._run, name="remotes", daemon=True)
        self._thread.start()

    def find(self, name: str) -> RemoteServer | None:
        """The server of the entry `name`; None where it runs here."""
        return self._servers.get(name)

    def close(self, join_seconds: float = 5.0) -> None:
        """Ends every request in flight with `Closing`."""
        for server in self._servers.values():
            server.end(Closing())
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(join_seconds)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._finish())
            self._loop.close()

    async def _finish(self) -> None:
        """Every connection is closed: a server stops working on what it hears is not wanted."""
        for watching in self._watching:
            watching.cancel()
        await asyncio.sleep(_BEGUN_SECONDS)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for server in self._servers.values():
            with contextlib.suppress(Exception):
                await server.aclose()

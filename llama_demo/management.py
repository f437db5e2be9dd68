"""What the owner does with models: load, unload, pin. Nothing here blocks: a load goes on in the background, and all
who look see its progress in the model's state.

Whoever calls has checked that it is the owner who asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from llama_demo.errors import LlamaDemoError
from llama_demo.loading import ANALYSIS, LoadedModel
from llama_demo.messages import messages
from llama_demo.observe import LOG, one_line
from llama_demo.registry import Registry, Ticket


class Management:
    def __init__(self, registry: Registry[LoadedModel], offer: Callable[[str], None]) -> None:
        """`offer` lets visitors choose a model, too."""
        self._registry = registry
        self._offer = offer
        self._lock = threading.Lock()
        self._tickets: dict[str, Ticket[LoadedModel]] = {}

    def load(self, name: str) -> None:
        """Begins to load `name`, which visitors may choose from then on; a load under way is joined.

        Nothing that others use is unloaded for it; what went wrong later is in its state, and in the log. Raises
        `UnknownModel`, `DoesNotFit`, `Closing`.
        """
        self._offer(name)
        with self._lock:
            if name in self._tickets:
                return
            ticket = self._tickets[name] = self._registry.request(name)
        threading.Thread(target=self._wait, args=(name, ticket), name=f"load {name}", daemon=True).start()

    def unload(self, name: str) -> None:
        """Gives the memory of `name` back as soon as nobody uses it. A load that nobody else waits for ends."""
        with self._lock:
            ticket = self._tickets.pop(name, None)
        if ticket is not None:
            ticket.cancel()
        self._registry.pin(name, pinned=False)
        self._registry.unload(name)
        if not name.endswith(ANALYSIS):
            self.unload(name + ANALYSIS)

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keeps `name` in memory when nobody uses it, until it is unloaded here or pinned no more."""
        self._registry.pin(name, pinned=pinned)

    def _wait(self, name: str, ticket: Ticket[LoadedModel]) -> None:
        try:
            lease = ticket.wait()
            if lease is not None:
                lease.release()
                LOG.info("model=%s ready", one_line(name))
        except LlamaDemoError as error:
            LOG.error("%s", one_line(messages().error(error)))
        finally:
            with self._lock:
                if self._tickets.get(name) is ticket:
                    del self._tickets[name]

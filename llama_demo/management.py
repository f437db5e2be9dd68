"""What the owner does with models: load, unload, pin, download, convert, add; and what the Hub lets the owner have.

Nothing here blocks for long: loads, downloads and conversions go on in the background, and all who look see them.
Whoever calls has checked that it is the owner who asks.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llama_demo import hub, hub_push
from llama_demo.added_models import AddedModels, entry_for, local_entry
from llama_demo.catalog import Entry
from llama_demo.checkpoints.convert import convert
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.checkpoints.llama import Checkpoint
from llama_demo.checkpoints.whole import remove_abandoned
from llama_demo.entry_files import find_packaged, wanted_files
from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.hub_errors import AccessNeeded
from llama_demo.jobs import Jobs, Report
from llama_demo.loading import ANALYSIS, LoadedModel
from llama_demo.messages import messages
from llama_demo.model_cache import Report as LoadReport
from llama_demo.observe import LOG, one_line
from llama_demo.push_errors import LicenceNotConfirmed
from llama_demo.reasons import Reason
from llama_demo.registry import Registry, Ticket
from llama_demo.saving import Changes, save, to_confirm
from llama_demo.shelf import Shelf


class Management:
    def __init__(
        self,
        registry: Registry[LoadedModel],
        shelf: Shelf,
        added: AddedModels,
        folder: Path,
        original: Callable[[Entry, LoadReport], Checkpoint],
    ) -> None:
        """`folder` is where conversions go; what a killed process left half written in it goes at once. `original`
        gives an entry's weights as they are."""
        self._registry, self._shelf, self._added, self._folder = registry, shelf, added, folder
        remove_abandoned(folder)
        self.jobs = Jobs()
        self._lock = threading.Lock()
        self._tickets: dict[str, Ticket[LoadedModel]] = {}
        self._original = original
        self._pushed: dict[str, str] = {}
        self._granted: set[str] = set()
        self._refused: dict[str, LlamaDemoError] = {}

    def load(self, name: str) -> None:
        """Begins to load `name`, which visitors may choose from then on; a load under way is joined.

        Nothing that others use is unloaded for it; what went wrong later is in its state, and in the log. Raises
        `UnknownModel`, `DoesNotFit`, `Closing`.
        """
        self._shelf.offer(name)
        if self._shelf.everything.find(name).format == "remote":
            return
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

    def download(self, name: str) -> None:
        """Begins to fetch the files of `name`, or goes on where it was cut off.

        Raises `UnknownModel`, `JobInProgress`, and `Unsupported` where another server runs it."""
        entry = self._shelf.everything.find(name)
        if entry.path is not None or find_packaged(entry.package) is not None:
            return
        wanted_files(entry)
        self.jobs.start(name, "download", partial(self._download, entry))

    def convert(self, name: str, to: Quantization = "q8_0") -> None:
        """Begins to write the folder of `name` as a GGUF file, which becomes a model of its own beside it.

        Raises `UnknownModel`, `InvalidParameter` where it is no folder on this machine, `JobInProgress`.
        """
        entry = self._shelf.everything.find(name)
        if entry.path is None or entry.format == "gguf" or not entry.has_weights:
            raise InvalidParameter("name", name, Reason("expected.convertible"))
        self.jobs.start(name, "convert", partial(self._convert, entry, entry.path, to), to)

    def push(self, name: str, repo: str, changes: Changes, *, private: bool, confirmed: bool) -> None:
        """Begins to save `name` as a folder for plain transformers, and to put that into `repo` on the Hub.

        Raises `UnknownModel`, `InvalidParameter` for what is no repository's name or no model with weights of its own,
        `LicenceNotConfirmed`, `JobInProgress`.
        """
        entry = self._shelf.everything.find(name)
        if not entry.has_weights:
            raise InvalidParameter("name", name, Reason("expected.with_weights"))
        hub_push.check_name(repo)
        licence = to_confirm(entry)
        if licence is not None and not confirmed:
            raise LicenceNotConfirmed(entry.title, licence.name, licence.link)
        self.jobs.start(name, "push", partial(self._push, entry, repo, changes, private), (repo, changes, private))

    def pushed(self, name: str) -> str:
        """The address on the Hub at which `name` was put since the start, if it was."""
        return self._pushed.get(name, "")

    def cancel(self, name: str) -> None:
        """Ends whatever is under way for `name`: its download, its conversion, its load."""
        self.jobs.cancel(name)
        if self._registry.status(name).progress is not None:
            self.unload(name)

    def add(self, text: str) -> str:
        """Adds what `text` names, a folder, a file or a repository; returns its name. Raises as `entry_for`."""
        entry = entry_for(text, self._shelf.names())
        self._added.add(entry)
        self._shelf.put(entry)
        return entry.name

    def sign_in(self, token: str, *, remember: bool = False) -> str:
        """Uses `token` for the Hub from now on, and returns whose it is. Raises `TokenInvalid`, `HubUnavailable`."""
        who = hub.sign_in(token, remember=remember)
        self._granted.clear()
        self._refused.clear()
        return who

    def check_access(self, name: str) -> None:
        """Asks the Hub whether the repository of `name` may be downloaded now; the answer is kept.

        Raises `UnknownModel`, `HubUnavailable`, and `Unsupported` where another server runs it.
        """
        entry = self._shelf.everything.find(name)
        wanted_files(entry)
        try:
            hub.check_access(entry.repo)
        except AccessNeeded as refused:
            self._granted.discard(name)
            self._refused[name] = refused
        else:
            self._refused.pop(name, None)
            self._granted.add(name)

    def is_granted(self, name: str) -> bool:
        """Whether the Hub said so when it was last asked."""
        return name in self._granted

    def refusal(self, name: str) -> LlamaDemoError | None:
        """Why the Hub refused when it was last asked."""
        return self._refused.get(name)

    def close(self) -> None:
        self.jobs.close()

    def _download(self, entry: Entry, report: Report) -> None:
        hub.download(entry.repo, wanted_files(entry), report, revision=entry.revision)
        self._shelf.look_again(entry.name)

    def _convert(self, entry: Entry, source: Path, to: Quantization, report: Report) -> None:
        target = self._folder / f"{entry.name}-{to}.gguf"
        convert(source, target, to="gguf", quantization=to, report=report, replace=True)
        names = [name for name in self._shelf.names() if name != target.stem]
        made = local_entry(target, names, f"{entry.title} ({to.upper()})")
        self._added.add(made)
        self._shelf.put(made)

    def _push(self, entry: Entry, repo: str, changes: Changes, private: bool, report: Report) -> None:
        self._pushed.pop(entry.name, None)
        source = self._original(entry, lambda step: report(step.done_bytes or 0, step.total_bytes or 0))
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made, "model")
            save(entry, source, folder, changes, messages(), report=report)
            self._pushed[entry.name] = hub_push.push(folder, repo, f"Add {entry.title}", report, private=private)

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

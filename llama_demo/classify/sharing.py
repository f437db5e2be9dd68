"""Takes a head out of the app: with its backbone as a folder or an archive, or to the Hub, there alone by default.

It uses the files of a model and not the loaded model, so it takes no turn in the line.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import zipfile
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from llama_demo import hub_push
from llama_demo.catalog import Entry
from llama_demo.checkpoints.llama import Checkpoint
from llama_demo.checkpoints.whole import replacing
from llama_demo.classify import head as heads
from llama_demo.classify.cards import write_head_card
from llama_demo.classify.export import export
from llama_demo.classify.head import SUFFIX, Head
from llama_demo.classify.results import Exported, Pushed, Working
from llama_demo.errors import TargetExists
from llama_demo.leasing import UPDATE_SECONDS, Stopper, on_thread
from llama_demo.licences import Licence
from llama_demo.messages import Messages
from llama_demo.model_cache import Report
from llama_demo.push_errors import LicenceNotConfirmed
from llama_demo.saving import to_confirm
from llama_demo.visitors import Visitor

ARCHIVE = ".zip"

T = TypeVar("T")
Tell = Callable[[str, int, int], None]
"""Told a step, and how many of how many bytes of it are done."""


class _EndedError(Exception):
    """Nobody waits for the work any more."""


class Sharing:
    """`find` gives a head by its classifier's name, `home` the model that it belongs to, `checkpoint` that model's
    files; they raise `UnknownClassifier`, `WrongBackbone`, and what fetching a model does."""

    def __init__(
        self,
        *,
        find: Callable[[str, Visitor | None], Head],
        home: Callable[[Head], Entry],
        checkpoint: Callable[[str, Report], Checkpoint],
    ) -> None:
        self._find = find
        self._home = home
        self._checkpoint = checkpoint

    def to_confirm(self, classifier: str, visitor: Visitor | None = None) -> Licence | None:
        """The licence of the backbone that somebody must confirm before it is passed on with the head, if any."""
        return to_confirm(self._home(self._find(classifier, visitor)))

    async def export(
        self, classifier: str, target: Path, words: Messages, *, stopper: Stopper | None = None
    ) -> AsyncGenerator[Working | Exported, None]:
        """Writes the head with its backbone as a folder that plain transformers loads, or a .zip of it where `target`
        is named so. Raises `UnknownClassifier`, `WrongBackbone`, `DiskFull`, `TargetExists`, and as fetching does."""
        head = self._find(classifier, stopper.visitor if stopper else None)
        entry = self._home(head)

        def work(tell: Tell) -> Exported:
            if target.exists():
                raise TargetExists(str(target))
            if target.suffix != ARCHIVE:
                self._write(head, entry, target, words, tell)
                return Exported(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export") as folder:
                made = Path(folder, head.name)
                self._write(head, entry, made, words, tell)
                _archive(made, target, tell)
            return Exported(target)

        async for update in _aside(work, stopper):
            yield update

    async def push(
        self,
        classifier: str,
        repo: str,
        words: Messages,
        *,
        private: bool = True,
        with_backbone: bool = False,
        licence_confirmed: bool = False,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[Working | Pushed, None]:
        """Puts the head's file and its card into `repo` on the Hub, or the folder with the backbone.

        Raises `LicenceNotConfirmed` where the backbone may be passed on only under terms (`to_confirm` says which),
        and as `export` and `hub_push.push`.
        """
        hub_push.check_name(repo)
        visitor = stopper.visitor if stopper else None
        head = self._find(classifier, visitor)
        entry, licence = self._home(head), self.to_confirm(classifier, visitor)
        if with_backbone and licence is not None and not licence_confirmed:
            raise LicenceNotConfirmed(entry.name, licence.name, licence.link)

        def work(tell: Tell) -> Pushed:
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made, "files")
                if with_backbone:
                    self._write(head, entry, folder, words, tell)
                else:
                    file = folder / f"{head.name}{SUFFIX}"
                    heads.save(head, file)
                    write_head_card(head, Licence(entry.licence, entry.link), file.name, words, folder)
                return Pushed(hub_push.push(folder, repo, f"Add {head.name}", partial(tell, "upload"), private=private))

        async for update in _aside(work, stopper):
            yield update

    def _write(self, head: Head, entry: Entry, target: Path, words: Messages, tell: Tell) -> None:
        backbone = self._checkpoint(
            entry.name, lambda step: tell(step.step, step.done_bytes or 0, step.total_bytes or 0)
        )
        licence = Licence(entry.licence, entry.link)
        try:
            export(head, backbone, target, licence, words, report=partial(tell, "export"))
        except FileExistsError:
            raise TargetExists(str(target)) from None


def _archive(folder: Path, target: Path, tell: Tell) -> None:
    """Weights do not compress: they are stored as they are."""
    files = sorted(folder.iterdir())
    total, done = sum(file.stat().st_size for file in files), 0
    with replacing(target, total) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            tell("archive", done, total)
            archive.write(file, f"{folder.name}/{file.name}")
            done += file.stat().st_size


async def _aside(work: Callable[[Tell], T], stopper: Stopper | None) -> AsyncGenerator[Working | T, None]:
    """What the blocking `work` gives, computed on a thread of its own; until then how far it is. Whoever leaves, or
    stops, ends it at its next step."""
    stopper = stopper or Stopper()
    ended = threading.Event()
    now = [Working("export", 0, 0)]

    def tell(step: str, done: int, total: int) -> None:
        now[0] = Working(step, done, total)
        if ended.is_set() or stopper.stopped:
            raise _EndedError

    def run() -> T | None:
        try:
            return work(tell)
        except _EndedError:
            return None

    waited = on_thread(run, "export")
    try:
        while not waited.done():
            await asyncio.wait([waited], timeout=UPDATE_SECONDS)
            if not waited.done():
                yield now[0]
        made = waited.result()
        if made is not None:
            yield made
    finally:
        ended.set()

"""Long work that goes on in the background under a name, one piece a name: how far it is, how fast, and its cancelling.

It knows nothing of what is done. All who look see the same progress.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from llama_demo.errors import Closing, LlamaDemoError
from llama_demo.model_errors import JobInProgress

_log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Told the bytes done, of how many; raises where the job is to end."""
Kind = Literal["download", "convert", "push"]
_SPEED_SECONDS = 5.0
"""The speed is that of the last so many seconds."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job as people see it. `bytes_per_second` and `seconds_left` are None while there is nothing to tell them from.
    `error` is set once it has failed; a cancelled one is gone."""

    kind: Kind
    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    seconds_left: float | None
    error: LlamaDemoError | None


class _Cancelled(Exception):
    """Raised in the job's own thread by its report."""


@dataclass(eq=False)
class _Job:
    kind: Kind
    asked: object
    done_bytes: int = 0
    total_bytes: int = 0
    marks: list[tuple[float, int]] = field(default_factory=list)
    """When how many bytes were done, lately."""
    cancelled: bool = False
    ending: bool = False
    """Its work has heard of the cancelling, which cannot be taken back any more."""
    finished: bool = False
    error: LlamaDemoError | None = None
    thread: threading.Thread | None = None


class Jobs:
    """Every method may be called from any thread; only `close` blocks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._closed = False

    def start(self, name: str, kind: Kind, work: Callable[[Report], None], asked: object = None) -> None:
        """Begins `work` under `name`. Where the same is under way there, that goes on instead: `asked` tells works of
        one kind apart. What ends as it was cancelled is waited for, in the background. Raises `JobInProgress` where
        another is under way, `Closing`."""
        with self._lock:
            if self._closed:
                raise Closing()
            before = self._jobs.get(name)
            if before is not None and not before.finished and not before.ending:
                if (before.kind, before.asked) != (kind, asked):
                    raise JobInProgress(name)
                before.cancelled = False
                return
            job = self._jobs[name] = _Job(kind, asked)
            args = (name, job, work, before.thread if before is not None else None)
            job.thread = threading.Thread(target=self._run, args=args, name=f"{kind} {name}", daemon=True)
            job.thread.start()

    def cancel(self, name: str) -> None:
        """Ends the job at its next report; what failed is forgotten."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                return
            job.cancelled = True
            if job.finished:
                del self._jobs[name]

    def progress(self, name: str) -> JobProgress | None:
        """None where there is no job, or it is done."""
        with self._lock:
            job = self._jobs.get(name)
            return None if job is None else self._progress(job)

    def close(self, join_seconds: float = 10.0) -> None:
        """Cancels everything, and waits so long for each."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
            for job in jobs:
                job.cancelled = True
        for job in jobs:
            if job.thread is not None:
                job.thread.join(join_seconds)

    def _progress(self, job: _Job) -> JobProgress:
        speed = None
        if len(job.marks) > 1 and (seconds := job.marks[-1][0] - job.marks[0][0]) > 0:
            speed = (job.marks[-1][1] - job.marks[0][1]) / seconds
        left = (job.total_bytes - job.done_bytes) / speed if speed else None
        return JobProgress(job.kind, job.done_bytes, job.total_bytes, speed, left, job.error)

    def _end_if_cancelled(self, job: _Job) -> None:
        if job.cancelled:
            job.ending = True
            raise _Cancelled()

    def _report(self, job: _Job, done: int, total: int) -> None:
        with self._lock:
            self._end_if_cancelled(job)
            now = self._clock()
            job.done_bytes, job.total_bytes = done, total
            job.marks = [mark for mark in job.marks if now - mark[0] <= _SPEED_SECONDS] + [(now, done)]

    def _run(self, name: str, job: _Job, work: Callable[[Report], None], before: threading.Thread | None) -> None:
        error: LlamaDemoError | None = None
        try:
            if before is not None:
                before.join()
                with self._lock:
                    self._end_if_cancelled(job)
            work(lambda done, total: self._report(job, done, total))
        except _Cancelled:
            pass
        except LlamaDemoError as failure:
            error = failure
        except Exception:  # noqa: BLE001 the job's own thread: whoever looks must hear that it failed
            _log.exception("%s %s failed", job.kind, name)
            error = LlamaDemoError()
        with self._lock:
            job.finished, job.error = True, error
            if error is None and self._jobs.get(name) is job:
                del self._jobs[name]

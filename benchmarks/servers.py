"""Starts one server, waits until it answers, and ends it with all its children. Knows nothing of what is served."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

HOST = "127.0.0.1"
POLL_SECONDS = 0.05
END_SECONDS = 20.0


class NotStarted(Exception):
    """A server ended by itself, or was not there in time; the message has its last words."""


def end_in_order() -> None:
    """Makes a polite request to end this command unwind it, so that the server it runs ends with it."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    ready_url: str,
    environment: Mapping[str, str],
    timeout_seconds: float = 300.0,
    folder: Path | None = None,
) -> Iterator[psutil.Process]:
    """Runs `command` for the block, from the moment that `ready_url` answers 200. Raises `NotStarted`."""
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [str(part) for part in command], env=dict(environment), cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            try:
                wait_until_ready(process, ready_url, timeout_seconds)
            except NotStarted as error:
                log.seek(0)
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
                raise NotStarted(f"{error}: {lines[-1] if lines else 'it said nothing'}") from None
            yield process
        finally:
            end(process)


def wait_until_ready(process: psutil.Process, url: str, timeout_seconds: float) -> None:
    """Returns at the first answer with status 200. Raises `NotStarted`."""
    ends_at = time.monotonic() + timeout_seconds
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while time.monotonic() < ends_at:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise NotStarted("it ended by itself")
            try:
                if http.get(url).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_SECONDS)
    raise NotStarted(f"it did not answer within {timeout_seconds:g} s")


def end(process: psutil.Process) -> None:
    """Asks the process to end, then ends what is left of it and of its children, by their ids."""
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    psutil.wait_procs([process], END_SECONDS)
    _, alive = psutil.wait_procs(family, 1.0)
    for left in alive:
        try:
            left.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, END_SECONDS)


def memory_bytes(process: psutil.Process) -> int:
    """What the process and its children hold: the sum of their proportional set sizes, so that a page which several
    share is counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total

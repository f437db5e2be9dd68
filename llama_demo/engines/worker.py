"""A child process that owns a model, and the pipe to it: the plumbing that every engine in a process of its own shares.

The parent never blocks to send, reads on a thread of its own, and ends the child by force: there is nothing in it to
save. The child ends by itself when its parent is gone. It knows neither models nor requests.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

_PACKAGE_ROOT = Path(__file__).parents[2]
_GRACE_SECONDS = 1.0
"""For a child that has closed its pipe to end, so that its own exit status can be told."""

_SILENCED = "import sys; sys.modules['openvino_telemetry'] = None"
"""Through this package OpenVINO tells its makers of each start, unless it is not there."""


class LoadProblem(NamedTuple):
    """The child's first word where it could not load: `memory` where that was what lacked."""

    memory: bool
    problem: Reason


class Worker:
    """The parent's side. `module` has a `main()` that calls `parent_connection`.

    A fresh interpreter rather than a fork (threads of ours hold locks) or multiprocessing's spawn (it would run the
    program's main module again, the page's imports with it). In a session of its own, so that Ctrl-C in the terminal
    reaches the parent alone.
    """

    def __init__(self, module: str) -> None:
        self._connection, theirs = Pipe()
        paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"{_SILENCED}; from {module} import main; main()", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        self._orders: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, path: Path, order: object) -> Any:
        """Sends the first order and waits for its answer: whatever the child says unless that is a `LoadProblem`.

        Raises `BadCheckpoint` about `path`, or `MemoryError`; the child has ended then.
        """
        try:
            self._connection.send(order)
            answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._end(_GRACE_SECONDS)
            answer = LoadProblem(code == -signal.SIGKILL, Reason("checkpoint.engine_ended", code=code))
        except BaseException:
            self.close()
            raise
        if isinstance(answer, LoadProblem):
            self.close()
            raise MemoryError(answer.problem) if answer.memory else BadCheckpoint(str(path), answer.problem)
        return answer

    def start(self, receive: Callable[[Any], None], ended: Callable[[], None]) -> None:
        """From now on `receive` gets every message of the child, and `ended` is called when it is gone, both on one
        thread."""
        for name, target in (
            ("engine-orders", self._send_orders),
            ("engine-messages", lambda: self._read_messages(receive, ended)),
        ):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def send(self, order: object) -> None:
        """Never blocks; an order to a child that is gone goes nowhere."""
        self._orders.put(order)

    def close(self) -> None:
        """Ends the child and waits until it is gone. May be called twice."""
        self._end(0.0)
        self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _send_orders(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._connection.send(order)
            except OSError:
                return

    def _read_messages(self, receive: Callable[[Any], None], ended: Callable[[], None]) -> None:
        try:
            while True:
                receive(self._connection.recv())
        except (EOFError, OSError):
            self._end(_GRACE_SECONDS)
        finally:
            ended()

    def _end(self, grace_seconds: float) -> int:
        """The child's exit status: its own where it ends within the grace, else what killing it gives."""
        try:
            return self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def parent_connection() -> Connection:
    """The child's side, first thing in its `main`: the pipe to the parent, with the child's end tied to the parent's.

    Standard input is that tie: it closes when the parent dies, however that happened and whatever the child is doing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    return Connection(int(sys.argv[1]))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)

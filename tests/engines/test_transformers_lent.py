"""A GPU that is lent for a call: what is borrowed and for how long, what a refusal becomes, and the package `spaces`.

There is no GPU here. The package is the real one, in its ZeroGPU mode: it asks a stand-in for the service that lends,
and forks a process for each call. Only its dealings with CUDA are left out, as it leaves them out itself where there is
no torch: a torch built for the CPU lacks what they need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from llama_demo.engines.transformers_lent import MOST_SECONDS, START_SECONDS, LentEngine
from llama_demo.errors import Closing, EngineCrashed
from llama_demo.model_errors import LentTimeUsed, NothingLent
from llama_demo.values import Sampling
from tests.engines.contract import ids_of

PROMPT = (1, 40, 77, 120, 55, 301)
GREEDY = Sampling(12, temperature=0.0)


class Refused(Exception):
    """As the package's own: told apart by its title."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title


def make(folder: Path, lend: Any = None) -> LentEngine:
    engine = LentEngine(folder, device="cpu", name="tiny", eos_ids=(), context_tokens=256, reproducible=True)
    if lend is not None:
        engine.place(lend)
    return engine


def test_what_is_borrowed_grows_with_the_length_that_was_asked_for(tiny_folder: Path) -> None:
    asked: list[float] = []

    def lend(task: Any, duration: Any) -> Any:
        def borrowed(*arguments: Any) -> Any:
            asked.append(duration(*arguments))
            return task(*arguments)

        return borrowed

    engine = make(tiny_folder, lend)
    for length in (1, 100, 200):
        ids_of(engine.generate(PROMPT, Sampling(length, temperature=0.0)))
    engine.score(PROMPT, 1)
    engine.embed([PROMPT, PROMPT * 10])
    engine.close()
    short, longer, longest, *reading = asked
    assert START_SECONDS < short < longer < longest <= MOST_SECONDS
    assert START_SECONDS < reading[0] < reading[1] < longer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota (60s requested)"), LentTimeUsed),
        (Refused("ZeroGPU illegal duration", "is larger than the maximum allowed"), LentTimeUsed),
        (Refused("ZeroGPU quota exceeded", "No GPU was available after 60s. Retry later"), NothingLent),
        (Refused("ZeroGPU client error", "No GPU was available"), NothingLent),
        (Refused("ZeroGPU worker error", "GPU task aborted"), EngineCrashed),
        (RuntimeError("anything else"), EngineCrashed),
    ],
)
def test_a_refusal_is_told_in_our_words_and_the_next_request_is_tried(
    tiny_folder: Path, error: Exception, kind: type[Exception]
) -> None:
    refusing = threading.Event()
    refusing.set()

    def lend(task: Any, duration: Any) -> Any:
        def borrowed(*arguments: Any) -> Any:
            if refusing.is_set():
                raise error
            return task(*arguments)

        return borrowed

    engine = make(tiny_folder, lend)
    with pytest.raises(kind):
        ids_of(engine.generate(PROMPT, GREEDY))
    with pytest.raises(type(error) if kind is EngineCrashed else kind):
        engine.score(PROMPT, 1)
    refusing.clear()
    assert len(ids_of(engine.generate(PROMPT, GREEDY))) == GREEDY.max_new_tokens
    engine.close()


def test_who_stops_while_nothing_is_lent_yet_is_told_at_once_and_closing_ends_the_others(tiny_folder: Path) -> None:
    lent = threading.Event()

    def lend(task: Any, duration: Any) -> Any:
        def borrowed(*arguments: Any) -> Any:
            lent.wait(60)
            yield from task(*arguments)

        return borrowed if "tokens" in task.__name__ else task

    engine = make(tiny_folder, lend)
    stopped, other = engine.generate(PROMPT, GREEDY), engine.generate(PROMPT, GREEDY)
    stopped.cancel()
    assert ids_of(stopped) == []
    assert stopped.finish_reason == "cancelled"
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(Closing):
        ids_of(other)
    lent.set()
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(Closing):
        engine.generate(PROMPT, GREEDY)


def test_a_closing_that_comes_while_a_call_begins_waits_for_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(tiny_folder)
    closing = threading.Thread(target=engine.close)

    class Beginning(threading.Thread):
        def start(self) -> None:
            closing.start()
            closing.join(0.2)  # as far as it gets
            super().start()

    monkeypatch.setattr(threading, "Thread", Beginning)
    with suppress(Closing):
        ids_of(engine.generate(PROMPT, GREEDY))
    closing.join(60)
    assert not closing.is_alive()


PROGRAM = """
import json, os, sys
from pathlib import Path
sys.modules["torch"] = None
import spaces
del sys.modules["torch"]
from llama_demo.engines.transformers_lent import LentEngine, lender
from llama_demo.errors import LlamaDemoError
from llama_demo.values import Sampling

engine = LentEngine(
    Path(sys.argv[1]), device="cpu", name="tiny", eos_ids=(), context_tokens=256, reproducible=True
)
engine.place(lender())
said = {"pid": os.getpid()}
try:
    said["ids"] = [token.id for token in engine.generate((1, 40, 77, 120, 55, 301), Sampling(12, temperature=0.0))]
    said["logprob"] = float(engine.score((1, 40, 77, 120), 1).logprobs[-1])
    endless = engine.generate((1, 40), Sampling(200, temperature=1.0, seed=1))
    next(iter(endless))
    endless.cancel()
    list(endless)
    said["end"] = endless.finish_reason
except LlamaDemoError as error:
    said["refusal"] = [type(error).__name__, error.data()]
engine.close()
print(json.dumps(said))
"""


@contextmanager
def service(*, left_seconds: int | None = None) -> Iterator[tuple[str, list[tuple[str, dict[str, list[str]]]]]]:
    """The address of what lends, and what it was asked; with `left_seconds` it refuses, as so many are left."""
    asked: list[tuple[str, dict[str, list[str]]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            address = urlsplit(self.path)
            asked.append((address.path, parse_qs(address.query)))
            said: dict[str, Any] = {}
            status = 200
            if address.path == "/schedule" and left_seconds is not None:
                status, said = 429, {"left": left_seconds, "wait": 400}
            elif address.path == "/schedule":
                said = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": f"token-{len(asked)}"}
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for a request log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


def run(address: str, folder: Path, home: Path) -> dict[str, Any]:
    environment = {**os.environ, "SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": address, "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.slow
def test_with_the_spaces_own_package_each_call_borrows_runs_in_another_process_and_gives_back(
    tiny_folder: Path, tmp_path: Path
) -> None:
    plain = make(tiny_folder)
    ids = ids_of(plain.generate(PROMPT, GREEDY))
    logprob = float(plain.score(PROMPT[:4], 1).logprobs[-1])
    plain.close()
    with service() as (address, asked):
        said = run(address, tiny_folder, tmp_path)
    assert said["ids"] == ids
    assert said["logprob"] == pytest.approx(logprob, abs=1e-4)
    assert said["end"] == "cancelled"
    paths = [path for path, _ in asked]
    assert [paths.count(path) for path in ("/schedule", "/release")] == [3, 3]
    assert all(int(query["pid"][0]) != said["pid"] for path, query in asked if path == "/allow")
    assert "/allow" in paths
    durations = [int(query["durationSeconds"][0]) for path, query in asked if path == "/schedule"]
    assert durations[1] < durations[2]
    assert durations[0] < durations[2]


@pytest.mark.slow
def test_with_the_spaces_own_package_a_quota_that_is_used_up_is_told_with_what_was_asked_for(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with service(left_seconds=3) as (address, _):
        said = run(address, tiny_folder, tmp_path)
    name, data = said["refusal"]
    assert name == "LentTimeUsed"
    assert data["seconds"] == pytest.approx(START_SECONDS, abs=1)

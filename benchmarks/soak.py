"""Memory over thousands of short chats, and what unloading gives back: `python -m benchmarks.soak`.

Resident memory is the sum of the proportional set sizes (PSS) of the app's process and its children: a page of memory
that several of them share counts once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.results import Finding
from benchmarks.servers import HOST, free_port, memory_bytes, started
from llama_demo import bench

ROOT = Path(__file__).parent.parent
SAMPLE_SECONDS = 2.0
FULL = 0.98
"""Of the fullest that the cache was: the last blocks come and go."""


@dataclass(frozen=True, slots=True)
class Sample:
    seconds: float
    memory_bytes: int
    cache_used: float


def when_first_full(samples: Sequence[Sample]) -> Sample:
    """The first sample with the cache as full as it gets."""
    fullest = max(sample.cache_used for sample in samples)
    return next(sample for sample in samples if sample.cache_used >= FULL * fullest)


class Sampler:
    """Takes a sample every two seconds on a thread of its own, from the start to `stop`."""

    def __init__(self, process: psutil.Process, url: str) -> None:
        self.samples: list[Sample] = []
        self._process, self._url = process, url
        self._stopped = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.take()

    def take(self) -> None:
        used = httpx.get(f"{self._url}/soak/cache", trust_env=False, timeout=30.0).json()["used"]
        self.samples.append(Sample(time.monotonic() - self._started, memory_bytes(self._process), used))

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.take()


def main() -> int:
    given = _arguments()
    port = free_port()
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory() as cache:
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.soak_server", str(port), cache]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        with started(command, ready_url=url, environment=environment, folder=ROOT) as process:
            page_bytes = memory_bytes(process)
            bench.run(bench.BenchPlan(url, max_new_tokens=2, first_prompt=4799))
            sampler = Sampler(process, url)
            rounds = given.chats // given.visitors
            plan = bench.BenchPlan(url, given.visitors, rounds, given.new_tokens)
            report = bench.run(plan)
            sampler.stop()
            httpx.post(f"{url}/soak/unload", trust_env=False, timeout=60.0).raise_for_status()
            unloaded_bytes = memory_bytes(process)
    found = findings(sampler.samples, page_bytes, unloaded_bytes)
    print(f"{report.requests} chats by {report.visitors} visitors in {report.wall_seconds:.0f} s")
    print(Finding("failed requests", report.failures, at_most=0).line(), *report.errors, sep="\n")
    print(*(finding.line() for finding in found), sep="\n")
    return 1 if report.failures or any(finding.met is False for finding in found) else 0


def findings(samples: Sequence[Sample], page_bytes: int, unloaded_bytes: int) -> list[Finding]:
    """The memory's story, in MB and per cent; the last sample is taken after the last chat."""
    first, last = when_first_full(samples), samples[-1]
    growth = 100 * (last.memory_bytes / first.memory_bytes - 1)
    given_back = 100 * (last.memory_bytes - unloaded_bytes) / (last.memory_bytes - page_bytes)
    return [
        Finding("the page before any model, MB", page_bytes / 1e6),
        Finding("when the cache had first filled, s from the start", first.seconds),
        Finding("when the cache had first filled, share of it used", first.cache_used),
        Finding("when the cache had first filled, MB", first.memory_bytes / 1e6),
        Finding("at the end, MB", last.memory_bytes / 1e6),
        Finding("grown since the cache had first filled, %", growth, at_most=5),
        Finding("after unloading, MB", unloaded_bytes / 1e6),
        Finding("given back of what the model took, %", given_back, 90),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=4000)
    parser.add_argument("--visitors", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""Memory over thousands of short chats, and what unloading gives back: `python -m benchmarks.soak`.

Resident memory is the sum of the proportional set sizes (PSS) of the app's process and its children: a page of memory
that several of them share counts once. The engine does not say when its KV cache had first filled, kept prefixes
included, so that is reckoned: from the blocks it holds, and the blocks that a chat fills and shares with no other.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import psutil

from benchmarks.embedded import prepare
from benchmarks.results import Finding
from benchmarks.running import ROOT, environment
from benchmarks.servers import HOST, end_in_order, free_port, memory_bytes, started
from llama_demo import bench, prompts
from llama_demo.engines.openvino_messages import BLOCK_TOKENS
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import turns_from

SAMPLE_SECONDS = 2.0
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory when so many chats were over; `page_bytes` is the app's own process, without the engine's."""

    chats: int
    memory_bytes: int
    page_bytes: int

    def line(self) -> str:
        return f"after {self.chats} chats {self.memory_bytes / 1e6:.0f} MB, the page {self.page_bytes / 1e6:.0f} of it"


class Sampler:
    """Takes a sample every two seconds on a thread of its own, from the start to `stop`."""

    def __init__(self, process: psutil.Process, url: str, new_tokens: int) -> None:
        self.samples: list[Sample] = []
        self._process, self._url, self._new_tokens = process, url, new_tokens
        self._before = self.state()["tokens"]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.take()

    def state(self) -> dict[str, int]:
        """`blocks` the cache holds, and `tokens` made so far."""
        state: dict[str, int] = httpx.get(f"{self._url}/soak/cache", trust_env=False, timeout=30.0).json()
        return state

    def take(self) -> None:
        chats = (self.state()["tokens"] - self._before) // self._new_tokens
        self.samples.append(Sample(chats, memory_bytes(self._process), own_bytes(self._process)))

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.take()


def own_bytes(process: psutil.Process) -> int:
    own: int = process.memory_full_info().pss
    return own


def blocks_for_each(prompt_ids: Sequence[list[int]], new_tokens: int) -> int:
    """The fewest whole blocks of the cache that any chat fills and shares with no other."""
    shared = max(_common(one, other) for one, other in pairwise(sorted(prompt_ids)))
    return min(len(ids) + new_tokens for ids in prompt_ids) // BLOCK_TOKENS - shared // BLOCK_TOKENS


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def main() -> int:
    end_in_order()
    given = _arguments()
    tokenizer = Tokenizer.load(prepare(given.work_folder).tokenizer)
    rendered = [
        list(prompts.render(tokenizer, turns_from((), bench.prompt(number))).ids) for number in range(given.chats)
    ]
    port = free_port()
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "benchmarks.soak_server", str(port), cache]
        with started(command, ready_url=url, environment=environment(), folder=ROOT) as process:
            empty_bytes = memory_bytes(process)
            bench.run(bench.BenchPlan(url, max_new_tokens=2, first_prompt=given.chats))
            sampler = Sampler(process, url, given.new_tokens)
            full_chats = math.ceil(sampler.state()["blocks"] / max(1, blocks_for_each(rendered, given.new_tokens)))
            report = bench.run(bench.BenchPlan(url, given.visitors, given.chats // given.visitors, given.new_tokens))
            sampler.stop()
            httpx.post(f"{url}/soak/unload", trust_env=False, timeout=60.0).raise_for_status()
            unloaded_bytes = memory_bytes(process)
    print(f"{report.requests} chats by {report.visitors} visitors in {report.wall_seconds:.0f} s")
    for sample in sampler.samples[:: max(1, len(sampler.samples) // SHOWN)]:
        print(
            f"  after {sample.chats} chats {sample.memory_bytes / 1e6:.0f} MB, the page {sample.page_bytes / 1e6:.0f}"
        )
    found = [
        Finding("failed requests", report.failures, at_most=0),
        *findings(sampler.samples, full_chats, empty_bytes, unloaded_bytes),
    ]
    print(*report.errors, *(finding.line() for finding in found), sep="\n")
    return 1 if any(finding.met is False for finding in found) else 0


def findings(samples: Sequence[Sample], full_chats: int, empty_bytes: int, unloaded_bytes: int) -> list[Finding]:
    """The memory's story, in MB and per cent. The last sample is taken after the last chat; the cache had first filled
    after `full_chats`, which may be more than there were."""
    last = samples[-1]
    first = next((sample for sample in samples if sample.chats >= full_chats), None)
    growth = None if first is None else 100 * (last.memory_bytes / first.memory_bytes - 1)
    given_back = 100 * (last.memory_bytes - unloaded_bytes) / (last.memory_bytes - empty_bytes)
    return [
        Finding("the page before any model, MB", empty_bytes / 1e6),
        Finding("chats until the cache had first filled", full_chats),
        Finding("memory then, MB", None if first is None else first.memory_bytes / 1e6),
        Finding("memory at the end, MB", last.memory_bytes / 1e6),
        Finding("grown since the cache had first filled, %", growth, at_most=5),
        Finding("after unloading, MB", unloaded_bytes / 1e6),
        Finding("given back of what the model took, %", given_back, 90),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=4000)
    parser.add_argument("--visitors", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--work-folder", type=Path, default=Path("build/benchmarks"), help="for the model's tokenizer")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""A process that loads one model, uses it, unloads it, and prints what that took as JSON; `benchmarks.memory` reads it.

OpenVINO's process is measured whole. transformers runs in this one, so what it had before is taken off.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Sampling

TEXTS = 2
NEW_TOKENS = 8
SETTLING_SECONDS = 3.0
"""Threads that end give back theirs within it."""


def read(field: str, processes: Sequence[psutil.Process]) -> int:
    """Bytes of those that are still there."""
    texts = [Path(f"/proc/{process.pid}/status").read_text() for process in processes if process.is_running()]
    return sum(int(found[1]) * 1024 for text in texts if (found := re.search(field + r":\s+(\d+)", text)))


def use(model: LoadedModel, context_tokens: int, rounds: int) -> None:
    """`rounds` of two requests as long as the context."""
    draw, sampling = random.Random(7), Sampling(max_new_tokens=NEW_TOKENS)
    most = model.tokenizer.vocabulary_size - 10
    for _ in range(rounds):
        texts = [[draw.randrange(10, most) for _ in range(context_tokens - 40)] for _ in range(TEXTS)]
        for stream in [model.engine.generate(text, sampling) for text in texts]:
            for _ in stream:
                continue


def least(processes: Sequence[psutil.Process], seconds: float) -> int:
    """The least that they hold within so many seconds."""
    until, found = time.monotonic() + seconds, read("VmRSS", processes)
    while time.monotonic() < until:
        time.sleep(0.05)
        found = min(found, read("VmRSS", processes))
    return found


def measure(runtime: Runtime, rounds: int) -> dict[str, tuple[int, int]]:
    name, page = runtime.default_model, [psutil.Process()]
    needs = runtime.models()[0].needs
    assert needs is not None, "it runs on this machine, and its files are there"
    before = read("VmRSS", page)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    with runtime.registry.lease(name) as loaded:
        engine = page[0].children(recursive=True) or page
        before = before if engine is page else 0
        use(loaded, needs.context_tokens, rounds)
        steady, peak = read("VmRSS", engine) - before, read("VmHWM", engine) - before
    runtime.management.unload(name)
    while runtime.memory()[0].holders:
        time.sleep(0.05)
    gone = steady - (least(engine, SETTLING_SECONDS) - before)
    return {
        "steady": (needs.bytes, steady),
        "peak": (needs.peak_bytes or needs.bytes, peak),
        "freed": (needs.bytes - needs.kept_bytes, gone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--reproducible", action="store_true")
    given = parser.parse_args()
    settings = Settings(
        model=given.model,
        cache_dir=given.cache,
        memory_gb=8,
        context_tokens=given.context_tokens,
        idle_minutes=0,
        dtype=given.dtype,
        reproducible=given.reproducible,
        device="cpu",
    )
    with Runtime(settings) as runtime:
        print(json.dumps(measure(runtime, given.rounds)))


if __name__ == "__main__":
    main()

"""What several continuations cost beside one, and what scoring a text costs: `python -m benchmarks.completion`.

The embedded model, in this process, through the same service that the page and the API ask.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from benchmarks.results import Finding, ratio
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.values import Completion, CompletionRequest, Sampling, ScoredText

NEW_TOKENS = 96
ALTERNATIVES = 8
SCORED_TOKENS = 1000
LONG_TOKENS = 4096
TOP_K = 20
WATCH_SECONDS = 0.02
_WARM = -1


@dataclass(slots=True)
class Results:
    """Seconds of each repeat, and bytes. A continuation's are those of one token of the longest alternative."""

    one: list[float] = field(default_factory=list)
    several: list[float] = field(default_factory=list)
    long_one: list[float] = field(default_factory=list)
    long_several: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    scoring: list[float] = field(default_factory=list)
    added_bytes: int | None = None


def findings(results: Results) -> list[Finding]:
    one, several, long_one, long_several, prefill, scoring = map(_median, _times(results))
    added = None if results.added_bytes is None else results.added_bytes / 1e6
    return [
        Finding(f"{ALTERNATIVES} alternatives over 1, wall time", ratio(several, one), at_most=2.5),
        Finding(f"the same after {SCORED_TOKENS} tokens", ratio(long_several, long_one), at_most=2.5),
        Finding(
            f"scoring {SCORED_TOKENS} tokens over the engine's prefill of them", ratio(scoring, prefill), at_most=3
        ),
        Finding(f"scoring {LONG_TOKENS} tokens, memory added at the peak, MB", added, at_most=300),
        Finding("1 alternative, tokens a second", ratio(1.0, one)),
        Finding("scoring, tokens a second", ratio(float(SCORED_TOKENS), scoring)),
    ]


def _times(results: Results) -> tuple[list[float], ...]:
    """In the order in which they are measured."""
    return (
        results.one,
        results.several,
        results.long_one,
        results.long_several,
        results.prefill,
        results.scoring,
    )


def _median(times: list[float]) -> float | None:
    return statistics.median(times) if times else None


async def measure(runtime: Runtime, repeats: int) -> Results:
    """All of it, one at a time and by turns, after one of each that does not count."""
    results = Results()
    for repeat in range(_WARM, repeats):
        row = (
            await _continue(runtime, _story(repeat), repeat, 1),
            await _continue(runtime, _story(repeat), repeat, ALTERNATIVES),
            await _continue(runtime, _text(3 * repeat, SCORED_TOKENS), repeat, 1),
            await _continue(runtime, _text(3 * repeat + 1, SCORED_TOKENS), repeat, ALTERNATIVES),
            await _prefill(runtime, _text(3 * repeat + 2, SCORED_TOKENS)),
            await _score(runtime, _text(3 * repeat + 2, SCORED_TOKENS)),
        )
        if repeat != _WARM:
            for times, seconds in zip(_times(results), row, strict=True):
                times.append(seconds)
    results.added_bytes = await _added_bytes(runtime, lambda: _score(runtime, _text(3 * repeats, LONG_TOKENS)))
    return results


def _story(repeat: int) -> str:
    return f"Chapter {repeat + 10}. In the harbour town they tell of a captain who never came home. One evening"


async def _continue(runtime: Runtime, prompt: str | tuple[int, ...], repeat: int, alternatives: int) -> float:
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=1.0, seed=100 * (repeat + 1))
    request = CompletionRequest(prompt, sampling, n=alternatives)
    started = time.monotonic()
    last = None
    async for update in runtime.generation.complete(request, model=runtime.default_model):
        last = update
    seconds = time.monotonic() - started
    assert isinstance(last, Completion)
    return seconds / max(len(one.ids) for one in last.continuations)


def _text(repeat: int, tokens: int) -> tuple[int, ...]:
    """Ids that no earlier text begins with, so that no cache helps."""
    return tuple(1000 + (repeat + 4) * 131 + (place * 37) % 2000 for place in range(tokens))


async def _prefill(runtime: Runtime, ids: tuple[int, ...]) -> float:
    """Until the engine, asked directly, has read `ids` and says its first token."""

    def read() -> float:
        with runtime.registry.lease(runtime.default_model) as loaded:
            started = time.monotonic()
            for _ in loaded.engine.generate(ids, Sampling(max_new_tokens=1, temperature=0.0)):
                break
            return time.monotonic() - started

    return await asyncio.to_thread(read)


async def _score(runtime: Runtime, ids: tuple[int, ...]) -> float:
    started = time.monotonic()
    last = None
    async for update in runtime.generation.score(ids, model=runtime.default_model, top_k=TOP_K):
        last = update
    assert isinstance(last, ScoredText)
    assert len(last.tokens) == len(ids)
    return time.monotonic() - started


async def _added_bytes(runtime: Runtime, work: Callable[[], Awaitable[object]]) -> int:
    """What this process and its children hold more than before, at most, while `work` runs."""
    await asyncio.to_thread(_loaded, runtime)
    before = held_bytes()
    with _watched() as peaks:
        await work()
    return max(peaks) - before


def _loaded(runtime: Runtime) -> None:
    with runtime.registry.lease(runtime.reads_with(runtime.default_model)):
        return


@contextmanager
def _watched() -> Iterator[list[int]]:
    peaks = [held_bytes()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            peaks.append(held_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def held_bytes() -> int:
    """Resident set sizes of this process and its children, added up."""
    own = psutil.Process()
    return sum(int(process.memory_info().rss) for process in (own, *own.children(recursive=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as cache, Runtime(read_settings({"cache_dir": cache}, {})) as runtime:
        found = findings(asyncio.run(measure(runtime, repeats)))
    print(*(finding.line() for finding in found), sep="\n")
    return 1 if any(finding.met is False for finding in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""From the start of the app to its page, and to the first token of the first reply: `python -m benchmarks.start`.

With an empty cache, where the model is converted first, and with the cache that this left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.results import Finding
from benchmarks.running import running_app
from benchmarks.servers import end_in_order
from llama_demo import bench
from llama_demo.bench_client import Ask, new_http

TIMEOUT_SECONDS = 120.0


def measure(cache: Path) -> tuple[float, float]:
    """Seconds from the start to the page, and to the first token of a visitor who asks at once."""
    begun = time.perf_counter()
    with running_app(cache=cache) as (url, _):
        page_seconds = time.perf_counter() - begun
        return page_seconds, asyncio.run(_first_token(url, begun))


async def _first_token(url: str, begun: float) -> float:
    async with new_http(TIMEOUT_SECONDS) as http:
        client = await bench.connect(http, bench.BenchPlan(url))
        asked = time.perf_counter() - begun
        measured = await bench.timed(client, Ask(bench.prompt(0), 8), 0, TIMEOUT_SECONDS)
    if measured.error:
        raise SystemExit(f"The first request failed: {measured.error}")
    return asked + measured.first_seconds


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    empty, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            empty.append(measure(Path(cache)))
            warm.append(measure(Path(cache)))
    found = []
    for words, times in (("empty cache", empty), ("warm cache", warm)):
        pages, firsts = zip(*times, strict=True)
        found.append(Finding(f"{words}: start to page, s, slowest of {repeats}", max(pages), at_most=5))
        found.append(Finding(f"{words}: start to page, s, median", statistics.median(pages)))
        found.append(Finding(f"{words}: start to first token, s, slowest of {repeats}", max(firsts), at_most=20))
        found.append(Finding(f"{words}: start to first token, s, median", statistics.median(firsts)))
    print(*(finding.line() for finding in found), sep="\n")
    return 1 if any(finding.met is False for finding in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())

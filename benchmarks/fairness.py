"""How long one visitor waits while another keeps many requests at the app: `python -m benchmarks.fairness`.

Both have a browser's cookie of their own, so that the app tells them apart. It is asked once as it starts on one's own
machine, where a visitor may have as many side by side as there are places, and once as it is for strangers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.embedded import prepare
from benchmarks.results import Finding
from benchmarks.running import running_app
from benchmarks.servers import end_in_order
from llama_demo import bench
from llama_demo.bench_client import Ask, ReplyClient, new_http

HELD = 32
HELD_TOKENS = 200
ASKED_TOKENS = 8
TIMEOUT_SECONDS = 300.0
SERVERS: dict[str, tuple[str, ...]] = {
    "private": (),
    "public": ("--public", "--visitor-requests", "1000000", "--visitor-tokens", "1000000000"),
}
"""Their options. What a visitor may have in a minute is another matter, and would end the measurement."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds to the first token of one visitor's single requests: on an idle server, and beside the one who holds
    many; `steps` are of the engine meanwhile: the time from one token of the holder's to the next."""

    idle: Sequence[float]
    beside: Sequence[float]
    steps: Sequence[float]


def findings(server: str, waits: Waits) -> Iterator[Finding]:
    idle, step = statistics.median(waits.idle), statistics.median(waits.steps)
    yield Finding(f"{server}: first token on the idle server, ms, median of {len(waits.idle)}", 1000 * idle)
    yield Finding(f"{server}: one step beside {HELD} requests of another, ms", 1000 * step)
    goal = 1000 * (2 * idle + step)
    for words, seconds in (("median", statistics.median(waits.beside)), ("slowest", max(waits.beside))):
        yield Finding(
            f"{server}: first token beside them, ms, {words} of {len(waits.beside)}", 1000 * seconds, None, goal
        )


async def measure(url: str, tokenizer: Path, repeats: int) -> Waits:
    numbers = itertools.count()
    async with _visitor(url) as one, _visitor(url) as holder:
        await _ask(one, next(numbers), ASKED_TOKENS)
        idle = [(await _ask(one, next(numbers), ASKED_TOKENS)).first_seconds for _ in range(repeats)]
        held: list[bench.Measured] = []
        answered = asyncio.Event()
        holding = [asyncio.create_task(_hold(holder, place, numbers, held, answered)) for place in range(HELD)]
        try:
            await asyncio.wait_for(answered.wait(), TIMEOUT_SECONDS)
            beside = [(await _ask(one, next(numbers), ASKED_TOKENS)).first_seconds for _ in range(repeats)]
        finally:
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)
    count = bench.counter(tokenizer)
    return Waits(idle, beside, [(one.last_seconds - one.first_seconds) / (count(one.text) - 1) for one in held])


async def _hold(
    client: ReplyClient, place: int, numbers: Iterator[int], held: list[bench.Measured], answered: asyncio.Event
) -> None:
    """One request after the other, each place's of a length of its own, so that they do not begin all at once."""
    while True:
        held.append(await _ask(client, next(numbers), HELD_TOKENS + 5 * place))
        answered.set()


async def _ask(client: ReplyClient, number: int, new_tokens: int) -> bench.Measured:
    """Raises `SystemExit` where the request fails."""
    measured = await bench.timed(client, Ask(bench.prompt(number), new_tokens), 0, TIMEOUT_SECONDS)
    if measured.error:
        raise SystemExit(f"A request failed: {measured.error}")
    return measured


@asynccontextmanager
async def _visitor(url: str) -> AsyncIterator[ReplyClient]:
    """A browser that has opened the page."""
    async with new_http(TIMEOUT_SECONDS) as http:
        (await http.get(url)).raise_for_status()
        yield await bench.connect(http, bench.BenchPlan(url))


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--work-folder", type=Path, default=Path("build/benchmarks"), help="for the model's files")
    given = parser.parse_args()
    tokenizer, found = prepare(given.work_folder).tokenizer, list[Finding]()
    for server, options in SERVERS.items():
        with running_app(*options) as (url, _):
            found += findings(server, asyncio.run(measure(url, tokenizer, given.repeats)))
    print(*(finding.line() for finding in found), sep="\n")
    return 1 if any(finding.met is False for finding in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Measures a running app as its visitors meet it: N of them at once, over its own HTTP interface, with a report.

It knows what a reply costs in seconds, and nothing of how it is made: the app and its peers are measured alike. A
server's own counts are not believed: tokens are counted from the text by the tokenizer that is given, when all is over.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import httpx

from llama_demo.bench_client import Ask, GradioClient, OpenAIClient, ReplyClient, RequestFailed, loopback, new_http
from llama_demo.errors import InvalidParameter
from llama_demo.messages import Messages
from llama_demo.reasons import Reason

Protocol = Literal["gradio", "openai"]
Count = Callable[[str], int]

PROBE_SECONDS = 0.05
"""While visitors are served, the probe is asked so often."""
_MOST = {"visitors": 1024, "rounds": 10_000, "max_new_tokens": 100_000, "first_prompt": 1_000_000}
_HEROES = (
    "lamplighter beekeeper cartographer ferryman glassblower violinist baker astronomer shepherd locksmith gardener "
    "typesetter diver weaver juggler postman falconer potter clockmaker botanist translator stonemason piper fisherman"
)
_PLACES = (
    "lighthouse harbour mountain library desert island orchard cathedral glacier market river forest observatory mine "
    "theatre bridge castle village canyon swamp railway garden museum volcano lagoon"
)
_TIMES = ("a winter", "one night", "a century ago", "next year", "in spring", "a storm", "a festival", "long ago")


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure: `visitors` at once, each asking `rounds` times, one after the other, at temperature 0.

    `tokenizer` is a folder with a tokenizer.json; without one the report counts characters and says so.
    `probe` is a path such as /health that is asked 20 times a second meanwhile. `first_prompt` counts on from an
    earlier run's prompts, so that none is in the server's cache. A request that takes longer than `timeout_seconds`
    has failed. Raises `InvalidParameter`.
    """

    url: str
    visitors: int = 1
    rounds: int = 1
    max_new_tokens: int = 64
    protocol: Protocol = "gradio"
    model: str = ""
    tokenizer: Path | None = None
    probe: str = ""
    first_prompt: int = 0
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", loopback(self.url))
        for name, most in _MOST.items():
            value, least = getattr(self, name), 0 if name == "first_prompt" else 1
            if not least <= value <= most:
                raise InvalidParameter(name, value, Reason("expected.whole_number", low=least, high=most))
        if not 0 < self.timeout_seconds <= 3600:
            raise InvalidParameter(
                "timeout_seconds", self.timeout_seconds, Reason("expected.number_above", low=0, high=3600)
            )
        if self.protocol not in ("gradio", "openai"):
            raise InvalidParameter(
                "protocol", self.protocol, Reason("expected.either", others=("gradio",), last="openai")
            )
        if self.probe and not self.probe.startswith("/"):
            raise InvalidParameter("probe", self.probe, Reason("expected.probe"))

    def asks(self) -> list[list[Ask]]:
        """Each visitor's requests, in one session as an open page has it."""
        sessions = [secrets.token_hex(8) for _ in range(self.visitors)]
        return [
            [
                Ask(prompt(self.first_prompt + turn * self.visitors + visitor), self.max_new_tokens, session=session)
                for turn in range(self.rounds)
            ]
            for visitor, session in enumerate(sessions)
        ]


@dataclass(frozen=True, slots=True)
class Measured:
    """One request. Seconds count from when it was sent; `error` is empty where the whole reply came."""

    visitor: int
    error: str = ""
    text: str = ""
    first_text: str = ""
    first_seconds: float = math.nan
    last_seconds: float = math.nan
    gaps_seconds: tuple[float, ...] = ()
    """Between one update of the text and the next."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What N visitors met. `amount` is counted in `unit`; percentiles are None where there is nothing to measure."""

    visitors: int
    requests: int
    failures: int
    errors: tuple[str, ...]
    unit: Literal["tokens", "characters"]
    amount: int
    wall_seconds: float
    per_second: float
    """Of all visitors together, from the first request to the last reply."""
    first_p50_seconds: float | None
    first_p95_seconds: float | None
    first_max_seconds: float | None
    gap_p95_seconds: float | None
    probe_p95_seconds: float | None
    probe_failures: int | None
    decode_rates: tuple[float, ...] = field(default=())
    """For each visitor, `unit` a second after the first update, the median of its requests."""

    @property
    def decode_rate(self) -> float | None:
        """The median visitor's."""
        return statistics.median(self.decode_rates) if self.decode_rates else None

    def public(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "decode_rate": self.decode_rate}

    def lines(self, words: Messages) -> list[str]:
        """A line a figure, for people."""
        shown = {name: _shown(value) for name, value in self.public().items() if name != "decode_rates"}
        return [f"{words('bench.' + name):<48}{value}" for name, value in shown.items() if value]


def run(plan: BenchPlan) -> BenchReport:
    """Measures; blocks until every request has ended or timed out.

    Raises `NothingToMeasure` where no such server answers, `BadCheckpoint` for a tokenizer that cannot be read.
    """
    count = counter(plan.tokenizer)
    measured, wall_seconds, probes = asyncio.run(_measure(plan))
    return summarise(measured, wall_seconds, count, probes, unit="characters" if plan.tokenizer is None else "tokens")


def prompt(number: int) -> str:
    """One of 4,800 requests for a story, so that no two visitors share more than its first words."""
    heroes, places = _HEROES.split(), _PLACES.split()
    rest, hero = divmod(number, len(heroes))
    turn, place = divmod(rest, len(places))
    time_of_it = _TIMES[turn % len(_TIMES)]
    return f"Write a long story about a {heroes[hero]}, a {places[place]} and {time_of_it}. Tell everything in detail."


async def connect(http: httpx.AsyncClient, plan: BenchPlan) -> ReplyClient:
    """A client for the plan's server. Raises `NothingToMeasure`."""
    kind = GradioClient if plan.protocol == "gradio" else OpenAIClient
    return await kind.connect(http, plan.url, plan.model)


async def timed(client: ReplyClient, ask: Ask, visitor: int, timeout_seconds: float) -> Measured:
    """Sends one request and times what comes. Never raises for what the server does."""
    started = time.perf_counter()
    first_text, text, times = "", "", list[float]()
    error = ""
    try:
        async with asyncio.timeout(timeout_seconds):
            async for grown in client.stream(ask):
                if grown:
                    times.append(time.perf_counter() - started)
                    first_text, text = first_text or grown, grown
    except TimeoutError:
        error = f"no whole reply within {timeout_seconds:g} s"
    except RequestFailed as failure:
        error = str(failure)
    except (httpx.HTTPError, ValueError, KeyError) as failure:
        error = f"{type(failure).__name__} {failure}".rstrip()
    if not error and not times:
        error = "the reply is empty"
    if not times:
        return Measured(visitor, error)
    gaps = tuple(after - before for before, after in pairwise(times))
    return Measured(visitor, error, text, first_text, times[0], times[-1], gaps)


def summarise(
    measured: Sequence[Measured],
    wall_seconds: float,
    count: Count,
    probes: Sequence[float | None] | None = None,
    *,
    unit: Literal["tokens", "characters"] = "tokens",
) -> BenchReport:
    """The report. A failed request counts as a failure and with nothing else; a probe that failed is None, and
    `probes` are None where nothing was probed."""
    good = [request for request in measured if not request.error]
    firsts = [request.first_seconds for request in good]
    gaps = [gap for request in good for gap in request.gaps_seconds]
    answered = [seconds for seconds in probes or () if seconds is not None]
    amount = sum(count(request.text) for request in good)
    return BenchReport(
        visitors=len({request.visitor for request in measured}),
        requests=len(measured),
        failures=len(measured) - len(good),
        errors=tuple(sorted({request.error for request in measured if request.error})),
        unit=unit,
        amount=amount,
        wall_seconds=wall_seconds,
        per_second=amount / wall_seconds if wall_seconds > 0 else 0.0,
        first_p50_seconds=percentile(firsts, 50),
        first_p95_seconds=percentile(firsts, 95),
        first_max_seconds=max(firsts, default=None),
        gap_p95_seconds=percentile(gaps, 95),
        probe_p95_seconds=percentile(answered, 95),
        probe_failures=None if probes is None else len(probes) - len(answered),
        decode_rates=_decode_rates(good, count),
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); None of none."""
    if not values:
        return None
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def _decode_rates(good: Sequence[Measured], count: Count) -> tuple[float, ...]:
    rates: dict[int, list[float]] = {}
    for request in good:
        seconds = request.last_seconds - request.first_seconds
        if seconds > 0:
            rate = (count(request.text) - count(request.first_text)) / seconds
            rates.setdefault(request.visitor, []).append(rate)
    return tuple(statistics.median(rates[visitor]) for visitor in sorted(rates))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


async def _measure(plan: BenchPlan) -> tuple[list[Measured], float, list[float | None] | None]:
    async with new_http(plan.timeout_seconds) as http:
        client = await connect(http, plan)
        probes: list[float | None] = []
        prober = asyncio.create_task(_probe(http, plan.url + plan.probe, probes)) if plan.probe else None
        measured, wall_seconds = await visits(client, plan.asks(), plan.timeout_seconds)
        if prober is not None:
            prober.cancel()
            await asyncio.gather(prober, return_exceptions=True)
    return measured, wall_seconds, probes if plan.probe else None


async def visits(
    client: ReplyClient, asks: Sequence[Sequence[Ask]], timeout_seconds: float
) -> tuple[list[Measured], float]:
    """All visitors at once, each sending its own requests one after the other; what each met, and seconds in all."""

    async def visit(visitor: int) -> list[Measured]:
        return [await timed(client, ask, visitor, timeout_seconds) for ask in asks[visitor]]

    started = time.perf_counter()
    by_visitor = await asyncio.gather(*(visit(visitor) for visitor in range(len(asks))))
    wall_seconds = time.perf_counter() - started
    return [request for requests in by_visitor for request in requests], wall_seconds


async def _probe(http: httpx.AsyncClient, url: str, seconds: list[float | None]) -> None:
    while True:
        started = time.perf_counter()
        try:
            answer = await http.get(url)
            seconds.append(time.perf_counter() - started if answer.status_code == httpx.codes.OK else None)
        except httpx.HTTPError:
            seconds.append(None)
        await asyncio.sleep(PROBE_SECONDS)


def counter(tokenizer: Path | None) -> Count:
    """Counts a text's tokens, or its characters where there is no tokenizer. Raises `BadCheckpoint`."""
    if tokenizer is None:
        return len
    from llama_demo.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    return lambda text: len(loaded.encode(text))

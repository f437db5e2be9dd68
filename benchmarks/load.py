"""Crowds at both doors of this app, its page and `/v1`, beside vLLM-CPU in one run: `python -m benchmarks.load --help`.

With `--minutes` it then keeps a crowd at the doors, by turns, and watches the memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.embedded import prepare
from benchmarks.peers import TIMEOUT_SECONDS, Bench, measure_vllm
from benchmarks.results import VLLM, Finding, Results, ratio, table
from benchmarks.running import running_app
from benchmarks.servers import NotStarted, end_in_order, memory_bytes
from benchmarks.workload import NEW_TOKENS
from llama_demo import bench
from llama_demo.errors import LlamaDemoError

PAGE, V1 = "this app, page", "this app, /v1"
DOORS: dict[str, bench.Protocol] = {PAGE: "gradio", V1: "openai"}
CROWDS = (16, 64, 256)
PEER_CROWDS = (16, 64)
LONG_CROWD = 64
FIRST_MINUTES = 3.0
"""By then every cache has filled: memory is compared with what it was."""
PAUSE_SECONDS = 2.0
"""After a burst, before its memory is taken: what its connections held has gone."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of the app and its children, between two bursts."""

    minutes: float
    memory_bytes: int
    requests: int
    lost: int


def findings(results: Results, crowds: Sequence[int], samples: Sequence[Sample]) -> Iterator[Finding]:
    figure = results.figure
    for door in DOORS:
        kept = ratio(figure(door, 64, "per_second"), figure(door, 16, "per_second"))
        yield Finding(f"{door}: tokens a second, 64 visitors over 16", kept, 0.85)
        for crowd in crowds:
            yield Finding(f"{door}: {crowd} visitors, lost", figure(door, crowd, "failures"), at_most=0)
            yield Finding(f"{door}: {crowd} visitors, first token p95, s", figure(door, crowd, "first_p95_seconds"))
    for crowd in PEER_CROWDS:
        over = ratio(figure(V1, crowd, "per_second"), figure(VLLM, crowd, "per_second"))
        yield Finding(f"{crowd} visitors, tokens a second over vLLM-CPU, both at /v1", over, 1.2)
    if samples:
        yield from _memory_findings(samples)


def _memory_findings(samples: Sequence[Sample]) -> Iterator[Finding]:
    last = samples[-1]
    first = next((one for one in samples if one.minutes >= FIRST_MINUTES), None)
    grown = None if first is None or first is last else 100 * (last.memory_bytes / first.memory_bytes - 1)
    yield Finding(f"minutes of {LONG_CROWD} visitors", last.minutes)
    yield Finding("requests meanwhile", sum(one.requests for one in samples))
    yield Finding("of them lost", sum(one.lost for one in samples), at_most=0)
    yield Finding(f"memory after {FIRST_MINUTES:g} minutes, MB", None if first is None else first.memory_bytes / 1e6)
    yield Finding("memory at the end, MB", last.memory_bytes / 1e6)
    yield Finding("grown meanwhile, %", grown, at_most=5)


def measure_doors(setup: Bench, results: Results) -> None:
    """Each door on an app of its own: the other's prompts would be in its cache."""
    for door, protocol in DOORS.items():
        print(f"{door} ...", flush=True)
        with running_app() as (url, _):
            results.reports[door] = setup.crowd(url, protocol=protocol)


def watch_memory(setup: Bench, minutes: float) -> list[Sample]:
    """A crowd at one door, then at the other, until the time is up; a sample after each."""
    samples: list[Sample] = []
    doors = itertools.cycle(DOORS.values())
    asked = 0
    with running_app() as (url, process):
        plan = bench.BenchPlan(url, LONG_CROWD, 2, setup.new_tokens, timeout_seconds=TIMEOUT_SECONDS)
        begun = time.monotonic()
        while time.monotonic() - begun < minutes * 60:
            report = bench.run(replace(plan, protocol=next(doors), first_prompt=asked))
            asked += report.requests
            time.sleep(PAUSE_SECONDS)
            elapsed = (time.monotonic() - begun) / 60
            samples.append(Sample(elapsed, memory_bytes(process), report.requests, report.failures))
            print(f"  {elapsed:.1f} minutes: {samples[-1].memory_bytes / 1e6:.0f} MB", flush=True)
    return samples


def main() -> int:
    end_in_order()
    given = _arguments()
    setup = Bench(tuple(given.visitors), given.new_tokens, prepare(given.work_folder), None, given.vllm_python)
    results = Results()
    measure_doors(setup, results)
    print(f"{VLLM} ...", flush=True)
    try:
        peer_crowds = tuple(crowd for crowd in setup.crowds if crowd in PEER_CROWDS)
        measure_vllm(replace(setup, crowds=peer_crowds), results)
    except (NotStarted, LlamaDemoError) as error:
        results.left_out[VLLM] = str(error)
    samples = watch_memory(setup, given.minutes) if given.minutes > 0 else []
    found = list(findings(results, setup.crowds, samples))
    print(f"\n{os.cpu_count()} cores; {given.new_tokens} new tokens, greedy\n")
    print(*table(results), *_errors(results), "", *(finding.line() for finding in found), sep="\n")
    if given.json is not None:
        told = {**asdict(results), "samples": [asdict(sample) for sample in samples]}
        given.json.write_text(json.dumps(told, indent=2), encoding="utf-8")
    return 1 if any(finding.met is False for finding in found) else 0


def _errors(results: Results) -> Iterator[str]:
    """Why requests were lost."""
    for system, by_crowd in results.reports.items():
        for crowd, figures in by_crowd.items():
            yield from (f"{system}, {crowd} visitors: {error}" for error in figures["errors"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm-python", type=Path, metavar="PYTHON", help="of an environment that has vllm-cpu")
    parser.add_argument("--visitors", type=int, nargs="+", default=CROWDS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--minutes", type=float, default=0.0, help="for the memory; 30 for the figure in the README")
    parser.add_argument("--work-folder", type=Path, default=Path("build/benchmarks"), help="for the model's files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""This app beside what one might use instead, in one run: `python -m benchmarks.peers --help`.

One system at a time, each ended before the next is started; one that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import util
from pathlib import Path
from typing import Any

from benchmarks.conversation import NextTurn, next_turn
from benchmarks.embedded import Embedded, prepare
from benchmarks.results import (
    APP,
    ENGINE,
    LLAMA_CPP,
    SERVE,
    USUAL,
    VLLM,
    Figures,
    Results,
    findings,
    table,
)
from benchmarks.running import ROOT, environment, running_app
from benchmarks.servers import HOST, NotStarted, end_in_order, free_port, started
from benchmarks.workload import CROWDS, NEW_TOKENS, rounds_for
from llama_demo import bench, prompts
from llama_demo.bench_client import new_http
from llama_demo.devices import read_cpu
from llama_demo.errors import LlamaDemoError
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import turns_from

REPEATS = 5
"""Conversations, for the cost of a next turn."""
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What every system is asked, and where the model's files are."""

    crowds: tuple[int, ...]
    new_tokens: int
    files: Embedded
    llama_cpp_python: Path | None
    vllm_python: Path | None

    def crowd(self, url: str, *, one_at_a_time: bool = False, probe: str = "", **options: Any) -> dict[int, Figures]:
        """Warms a server up, then measures every crowd on it, with prompts it has not seen.

        `probe` is asked beside a crowd alone: beside one visitor it would take of the two cores what it measures.
        """
        plan = bench.BenchPlan(
            url,
            max_new_tokens=self.new_tokens,
            tokenizer=self.files.tokenizer,
            timeout_seconds=TIMEOUT_SECONDS,
            first_prompt=4000,
            **options,
        )
        warm_up = bench.run(replace(plan, visitors=2, rounds=2))
        if warm_up.failures:
            raise NotStarted("; ".join(warm_up.errors))
        reports: dict[int, Figures] = {}
        first = 0
        for visitors in self.crowds:
            rounds = rounds_for(visitors, one_at_a_time=one_at_a_time)
            asked = replace(plan, visitors=visitors, rounds=rounds, first_prompt=first)
            report = bench.run(replace(asked, probe=probe) if visitors > 1 else asked)
            reports[visitors] = report.public()
            first += visitors * rounds
            print(f"  {visitors} visitors: {report.per_second:.1f} tokens a second", flush=True)
        return reports


def measure_app(setup: Bench, results: Results) -> None:
    with running_app() as (url, _):
        results.reports[APP] = setup.crowd(url, probe="/health")
        results.next_turn_ratios[APP] = asyncio.run(_next_turn(setup, url)).ratio


async def _next_turn(setup: Bench, url: str) -> NextTurn:
    plan = bench.BenchPlan(url, tokenizer=setup.files.tokenizer)
    async with new_http(TIMEOUT_SECONDS) as http:
        client = await bench.connect(http, plan)
        return await next_turn(client, bench.counter(plan.tokenizer), REPEATS, 1)


def measure_engine(setup: Bench, results: Results) -> None:
    crowds = [str(crowd) for crowd in setup.crowds]
    cache = setup.files.folder / "cache"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmarks.engine_alone",
        cache,
        "--new-tokens",
        str(setup.new_tokens),
    ]
    found = _answer([*command, "--repeats", str(REPEATS), "--visitors", *crowds])
    results.reports[ENGINE] = dict(zip(setup.crowds, found["reports"], strict=True))
    results.next_turn_ratios[ENGINE] = NextTurn(**found["next_turn"]).ratio


def measure_llama_cpp(setup: Bench, results: Results) -> None:
    if setup.llama_cpp_python is None:
        raise NotStarted("give its Python with --llama-cpp-python")
    tokenizer = Tokenizer.load(setup.files.tokenizer)
    rounds = rounds_for(1)
    order = {
        "model": str(setup.files.gguf),
        "prompts": [
            list(prompts.render(tokenizer, turns_from((), bench.prompt(number))).ids) for number in range(rounds)
        ],
        "new_tokens": setup.new_tokens,
        "threads": os.cpu_count(),
    }
    script = Path(__file__).with_name("llama_cpp_alone.py")
    results.llama_cpp_requests += _answer([setup.llama_cpp_python, script], json.dumps(order))
    firsts = [request["first_seconds"] for request in results.llama_cpp_requests]
    results.reports[LLAMA_CPP] = {
        1: {
            "decode_rate": statistics.median(request["decode_rate"] for request in results.llama_cpp_requests),
            "per_second": statistics.median(request["total_rate"] for request in results.llama_cpp_requests),
            "first_p50_seconds": bench.percentile(firsts, 50),
            "first_p95_seconds": bench.percentile(firsts, 95),
            "first_max_seconds": max(firsts),
            "failures": 0,
        }
    }


def measure_vllm(setup: Bench, results: Results) -> None:
    if setup.vllm_python is None:
        raise NotStarted("give its Python with --vllm-python")
    port = free_port()
    command: list[str | Path] = [
        setup.vllm_python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        setup.files.hugging_face,
    ]
    command += ["--host", HOST, "--port", str(port)]
    command += ["--max-model-len", "2048", "--dtype", "bfloat16"]
    own = environment(VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1")
    results.reports[VLLM] = _measure_openai(setup, command, port, own)


def measure_serve(setup: Bench, results: Results) -> None:
    program = Path(sys.executable).with_name("transformers")
    if not program.exists() or any(util.find_spec(name) is None for name in ("uvicorn", "openai", "rich")):
        raise NotStarted("install transformers[serving] beside this app")
    port = free_port()
    command: list[str | Path] = [
        program,
        "serve",
        setup.files.hugging_face,
        "--continuous-batching",
        "--dtype",
        "bfloat16",
    ]
    command += ["--device", "cpu", "--host", HOST, "--port", str(port)]
    results.reports[SERVE] = _measure_openai(setup, command, port, environment())


def _measure_openai(
    setup: Bench, command: Sequence[str | Path], port: int, environment: dict[str, str]
) -> dict[int, Figures]:
    url = f"http://{HOST}:{port}"
    with started(command, ready_url=f"{url}/health", environment=environment):
        return setup.crowd(url, protocol="openai", model=str(setup.files.hugging_face))


def measure_usual_space(setup: Bench, results: Results) -> None:
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.usual_space", setup.files.hugging_face, str(port)]
    url = f"http://{HOST}:{port}"
    with started(command, ready_url=url, environment=environment(), folder=ROOT):
        results.reports[USUAL] = setup.crowd(url, one_at_a_time=True)


def _answer(command: Sequence[str | Path], given: str = "") -> Any:
    """The JSON that a command prints last. Raises `NotStarted` with its last words."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            input=given,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise NotStarted((error.stderr.strip().splitlines() or ["it said nothing"])[-1]) from None
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise NotStarted(f"{type(error).__name__} {error}") from None


SYSTEMS: tuple[tuple[str, Callable[[Bench, Results], None]], ...] = (
    (LLAMA_CPP, measure_llama_cpp),
    (APP, measure_app),
    (LLAMA_CPP, measure_llama_cpp),
    (ENGINE, measure_engine),
    (VLLM, measure_vllm),
    (SERVE, measure_serve),
    (USUAL, measure_usual_space),
)
"""In this order. One visitor's rate is compared with llama.cpp's both before and after, as machines speed up and slow
down."""


def main() -> int:
    end_in_order()
    given = _arguments()
    setup = Bench(
        crowds=tuple(given.visitors),
        new_tokens=given.new_tokens,
        files=prepare(given.work_folder),
        llama_cpp_python=given.llama_cpp_python,
        vllm_python=given.vllm_python,
    )
    results = Results()
    for name, measure in SYSTEMS:
        if given.only and name not in given.only:
            continue
        print(f"{name} ...", flush=True)
        try:
            measure(setup, results)
        except (NotStarted, LlamaDemoError) as error:
            results.left_out[name] = str(error)
    cpu = read_cpu()
    print(f"\n{os.cpu_count()} cores, {cpu.free_bytes / 1e9:.0f} GB free; {given.new_tokens} new tokens, greedy\n")
    print(*table(results), "", *(finding.line() for finding in findings(results)), sep="\n")
    if given.json is not None:
        given.json.write_text(json.dumps(asdict(results), indent=2), encoding="utf-8")
    return 1 if any(finding.met is False for finding in findings(results)) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-cpp-python", type=Path, metavar="PYTHON", help="of an environment that has it")
    parser.add_argument("--vllm-python", type=Path, metavar="PYTHON", help="of an environment that has vllm-cpu")
    parser.add_argument("--visitors", type=int, nargs="+", default=CROWDS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--only", nargs="+", choices=dict(SYSTEMS), help="leave the others out")
    parser.add_argument("--work-folder", type=Path, default=Path("build/benchmarks"), help="for the model's files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""Asks a running app of this machine whatever can be asked: every operation that it describes, well and badly formed,
and every function of its page with arbitrary values. Nothing may be a 5xx, take too long, or tell what is inside.

`python -m benchmarks.fuzz http://127.0.0.1:7860 --requests 20000` is the long run. Start the app for it with a small
model, `--public` and `--max-new-tokens 4`, and visitors' limits as high as they go.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok

from llama_demo.bench_client import loopback

SLOWEST_SECONDS = 60.0
_LEAKS = re.compile(r'Traceback|File "|site-packages|/home/|/root/|/tmp/|\bhf_[A-Za-z]{8}|sha256\$|scrypt\$')
"""What no answer may have: a traceback, a path, a token, a hash of a password."""
_ECHOED = 200
"""So much of an answer is shown with what is wrong with it."""

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=12,
)
_fields = ("id", "turns", "sampling", "model", "language", "text", "sides", "role", "content", "labels", "seed", "n")
_objects = st.dictionaries(st.sampled_from(_fields), _json, max_size=8)


@dataclass
class Report:
    """What was asked, and everything that came back wrong."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def heard(self, what: str, status: int, text: str) -> None:
        """Counts one answer, and looks at it."""
        self.requests += 1
        self.statuses[f"{what.split(maxsplit=1)[0]} {status}"] += 1
        if status >= 500:
            self.problems.append(f"{what}: {status} {text[:_ECHOED]}")
        if (leak := _LEAKS.search(text)) is not None:
            self.problems.append(f"{what}: it tells {leak[0]!r} in {text[:_ECHOED]}")


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int, use: Callable[[Any], None]) -> None:
    """Calls `use` with `count` values of `strategy`, the same for the same `number`."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        use(value)

    run()


def fuzz_openapi(address: str, count: int, number: int = 0) -> Report:
    """About `count` requests to the operations of `/v1/openapi.json`, half of them well formed."""
    report = Report()
    operations = [found.ok() for found in described(address).get_all_operations() if isinstance(found, Ok)]
    asked = [one for one in operations if one.method.upper() == "POST"]
    for operation in operations:
        share = count // len(asked) // 2 if operation in asked else 10
        modes = schemathesis.GenerationMode if operation in asked else [schemathesis.GenerationMode.POSITIVE]
        for mode in modes:
            drawn(operation.as_strategy(generation_mode=mode), share, number, lambda case: ask(case, report))
    return report


def described(address: str) -> Any:
    """The operations that the app describes, with what it says of their answers."""
    return schemathesis.openapi.from_url(f"{address}/v1/openapi.json")


def ask(case: Any, report: Report) -> None:
    """Sends one request, and holds the answer to its description."""
    what = f"{case.operation.label}"
    try:
        answer = case.call(timeout=SLOWEST_SECONDS)
    except OSError as error:  # what the client under it raises are all of this kind
        report.problems.append(f"{what}: {type(error).__name__} {error}"[:_ECHOED])
        return
    report.heard(what, answer.status_code, answer.text)
    try:
        case.validate_response(
            answer, checks=[content_type_conformance, response_schema_conformance, status_code_conformance]
        )
    except (Failure, FailureGroup) as error:
        report.problems.append(f"{what}: {answer.status_code} {error}"[: 5 * _ECHOED])


def fuzz_page(address: str, count: int, number: int = 0) -> Report:
    """About `count` calls of the page's functions, the named ones and those of the page's own."""
    report = Report()
    with httpx.Client(timeout=SLOWEST_SECONDS, trust_env=False) as http:
        config = http.get(f"{address}/config").json()
        functions = [one for one in config["dependencies"] if one["backend_fn"]]
        for place, function in enumerate(functions):
            width = len(function["inputs"])
            values = st.lists(_json | _objects, min_size=width, max_size=width) | st.lists(_json, max_size=4)
            what = f"page {function['api_name']}"
            call = _caller(http, address, function["id"], what, report)
            drawn(values, max(1, count // len(functions)), number + place, call)
    return report


def _caller(http: httpx.Client, address: str, index: int, what: str, report: Report) -> Callable[[list[Any]], None]:
    def call(data: list[Any]) -> None:
        session = f"fuzz{report.requests}"
        body = json.dumps({"data": data, "fn_index": index, "session_hash": session})
        headers = {"content-type": "application/json"}
        try:
            joined = http.post(f"{address}/gradio_api/queue/join", content=body, headers=headers)
            report.heard(what, joined.status_code, joined.text)
            if joined.status_code == 200:
                heard = http.get(f"{address}/gradio_api/queue/data", params={"session_hash": session})
                report.heard(what, heard.status_code, heard.text)
        except httpx.HTTPError as error:
            report.problems.append(f"{what}: {type(error).__name__} with {body[:_ECHOED]}")

    return call


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", type=loopback, help="the app's address on this machine")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given_ = parser.parse_args()
    wrong = 0
    for fuzz in (fuzz_openapi, fuzz_page):
        report = fuzz(given_.url, given_.requests // 2, given_.seed)
        print(f"{fuzz.__name__}: {report.requests} requests", json.dumps(report.statuses, sort_keys=True))
        print(*report.problems[:50], sep="\n")
        wrong += len(report.problems)
    healthy = httpx.get(f"{given_.url}/health", trust_env=False).status_code == 200
    print(f"{wrong} problems; the app is {'healthy' if healthy else 'not healthy'} afterwards")
    return 0 if healthy and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())

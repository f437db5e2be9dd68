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
from collections.abc import Callable, Iterator
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
_TAKEN = 200
_ECHOED = 200
"""So much of an answer is shown with what is wrong with it."""

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=12,
)
_fields = (
    "do",
    "name",
    "path",
    "token",
    "repo",
    "id",
    "turns",
    "sampling",
    "model",
    "language",
    "text",
    "sides",
    "role",
    "content",
    "labels",
    "seed",
    "n",
)
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
    """About `count` calls of the page's functions at each door that Gradio has for them: events through its queue and
    without it, the named ones and those of the page's own, and what parts of the page call."""
    report = Report()
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=SLOWEST_SECONDS, trust_env=False) as http:
        asks = [*_events(address), *_part_functions(address)]
        for place, (what, values, send) in enumerate(asks):

            def call(data: Any, what: str = what, send: Send = send) -> None:
                try:
                    for answer in send(http, f"fuzz{report.requests}", data):
                        report.heard(what, answer.status_code, answer.text)
                except httpx.HTTPError as error:
                    report.problems.append(f"{what}: {type(error).__name__} with {data!r}"[: 2 * _ECHOED])

            drawn(values, max(1, count // len(asks)), number + place, call)
    return report


Send = Callable[[httpx.Client, str, Any], Iterator[httpx.Response]]
"""Asks in a visit of that name, and gives what is answered."""


def _events(address: str) -> Iterator[tuple[str, st.SearchStrategy[Any], Send]]:
    for event in _config(address)["dependencies"]:
        if not event["backend_fn"]:
            continue
        width = len(event["inputs"])
        values = st.lists(_json | _objects, min_size=width, max_size=width) | st.lists(_json, max_size=4)

        def queued(http: httpx.Client, session: str, data: Any, index: int = event["id"]) -> Iterator[httpx.Response]:
            joined = _post(http, "queue/join", {"data": data, "fn_index": index, "session_hash": session})
            yield joined
            if joined.status_code == _TAKEN:
                yield http.get("queue/data", params={"session_hash": session})

        def direct(http: httpx.Client, session: str, data: Any, index: int = event["id"]) -> Iterator[httpx.Response]:
            yield _post(http, "run/predict", {"data": data, "fn_index": index, "session_hash": session})

        yield f"page {event['api_name']}", values, queued
        yield f"direct {event['api_name']}", values, direct


def _part_functions(address: str) -> Iterator[tuple[str, st.SearchStrategy[Any], Send]]:
    for part in _config(address)["components"]:
        for name in part["props"].get("server_fns") or ():

            def send(
                http: httpx.Client, session: str, data: Any, part: int = part["id"], name: str = name
            ) -> Iterator[httpx.Response]:
                body = {"component_id": part, "fn_name": name, "session_hash": session, "data": data}
                yield _post(http, "component_server", body)

            yield f"part {name}", _objects | _json, send


def _config(address: str) -> Any:
    return httpx.get(f"{address}/config", timeout=SLOWEST_SECONDS, trust_env=False).json()


def _post(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    """In JSON as Python writes it: what it has for numbers that are none too."""
    return http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


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

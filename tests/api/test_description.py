"""What `/v1/openapi.json` says of an answer is so: of whole ones and of each event of a stream, its end included."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.fuzz import Report, ask, described
from tests.api.conftest import Served

ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/completions", {"prompt": "The harbour", "logprobs": 0}),
    ("/chat/completions", {"messages": [{"role": "user", "content": "hello"}], "logprobs": True}),
]


@pytest.mark.parametrize(("path", "body"), ASKED)
@pytest.mark.parametrize("options", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_an_answer_is_as_it_is_described(
    served: Served, path: str, body: dict[str, Any], options: dict[str, Any]
) -> None:
    operation = described(served.address)[path]["POST"]
    case = operation.Case(body={**body, **options, "max_tokens": 3, "n": 2}, media_type="application/json")
    report = Report()
    ask(case, report)
    assert report.problems == []
    assert report.statuses == {"POST 200": 1}

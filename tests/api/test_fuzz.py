"""Whatever is asked: no 5xx, no hang, nothing of the inside told, and the app healthy afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.fuzz import Report, fuzz_openapi, fuzz_page
from llama_demo.settings import Settings
from tests.api.conftest import Served, serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def public(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page for strangers that writes little, and lets one of them ask as much as there is to ask."""
    settings = Settings(
        model=str(tiny_folder),
        reproducible=True,
        public=True,
        cache_dir=tmp_path_factory.mktemp("fuzz-cache"),
        max_new_tokens=3,
        message_characters=2_000,
        visitor_requests=1_000_000,
        visitor_tokens=1_000_000_000,
    )
    yield from serve(settings)


def check(report: Report, served: Served, at_least: int) -> None:
    assert not report.problems[:5]
    assert report.requests >= at_least
    assert httpx.get(f"{served.address}/health").status_code == 200


def test_a_thousand_requests_to_the_openai_api(public: Served) -> None:
    report = fuzz_openapi(public.address, 1_000)
    check(report, public, 1_000)
    assert report.statuses["POST 200"] > 100
    assert report.statuses["POST 400"] > 100


def test_hundreds_of_requests_to_the_pages_functions(public: Served) -> None:
    check(fuzz_page(public.address, 300), public, 300)

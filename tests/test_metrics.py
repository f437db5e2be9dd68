from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llama_demo.api.metrics import metrics_route
from llama_demo.errors import MessageTooLong
from llama_demo.generation import Stopper
from llama_demo.metrics import Levels, Metrics
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Sampling, Turn
from tests.scripted import World, worlds
from tests.ui.scripted import scripted

PASSWORD = "correct horse"


@pytest.fixture
def make(tiny_folder: Path) -> Iterator[Callable[..., World]]:
    yield from worlds(tiny_folder)


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values in the labels' order, as Prometheus itself reads the text."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_a_reply_counts_as_a_request_with_its_tokens_and_their_times(make: Callable[..., World]) -> None:
    world = make()
    reply = world.reply()
    found = read(world.metrics)
    assert found["llama_demo_requests_total", "done", "chat"] == 1
    assert found["llama_demo_tokens_total", "new"] == reply.new_tokens
    assert found["llama_demo_tokens_total", "prompt"] == reply.prompt_tokens
    assert found[("llama_demo_first_token_seconds_count",)] == 1
    assert found["llama_demo_request_seconds_count", "chat"] == 1


def test_an_error_counts_by_its_kind_and_who_leaves_is_no_error(make: Callable[..., World]) -> None:
    world = make()

    async def leave() -> None:
        async with aclosing(world.chat()) as updates:
            async for _ in updates:
                break

    with pytest.raises(MessageTooLong):
        world.all((Turn("user", "x" * 1_000_000),))
    asyncio.run(leave())
    found = read(world.metrics)
    assert found["llama_demo_errors_total", "MessageTooLong"] == 1
    assert found["llama_demo_requests_total", "failed", "chat"] == 1
    assert found["llama_demo_requests_total", "left", "chat"] == 1


def test_a_model_that_was_in_memory_is_told_from_one_that_had_to_be_waited_for(make: Callable[..., World]) -> None:
    world = make()
    for _ in range(3):
        world.reply()
    found = read(world.metrics)
    assert found["llama_demo_model_leases_total", "absent"] == 1
    assert found["llama_demo_model_leases_total", "ready"] == 2


def test_what_others_know_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    levels = Levels(3, 5, 2, (("CPU", 700, 8000),), (("ready", 1),))
    metrics.watch(lambda: levels)
    found = read(metrics)
    assert found[("llama_demo_requests_running",)] == 3
    assert found[("llama_demo_requests_waiting",)] == 5
    assert found[("llama_demo_evictions_total",)] == 2
    assert found["llama_demo_memory_used_bytes", "CPU"] == 700
    assert found["llama_demo_models", "ready"] == 1


def test_two_runtimes_in_one_process_share_no_number(tmp_path: Path) -> None:
    with Runtime(Settings(cache_dir=tmp_path)) as one, Runtime(Settings(cache_dir=tmp_path)) as other:
        one.metrics.error(MessageTooLong(2, 1))
        assert ("llama_demo_errors_total", "MessageTooLong") in read(one.metrics)
        assert ("llama_demo_errors_total", "MessageTooLong") not in read(other.metrics)
        assert read(one.metrics)["llama_demo_memory_budget_bytes", "CPU"] == one.budget_bytes


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 200),
        ({"public": True}, {}, 403),
        ({"public": True}, {"authorization": "Bearer "}, 403),
        ({"public": True, "owner_password": PASSWORD}, {}, 403),
        ({"owner_password": PASSWORD}, {}, 403),
        ({"public": True, "owner_password": PASSWORD}, {"authorization": "Bearer wrong"}, 403),
        ({"public": True, "owner_password": PASSWORD}, {"authorization": f"Bearer {PASSWORD}"}, 200),
    ],
)
def test_the_numbers_are_the_owners_alone(settings: dict[str, Any], headers: dict[str, str], status: int) -> None:
    client = TestClient(Starlette(routes=[metrics_route(scripted(**settings))]))
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert ("llama_demo" in answer.text) == (status == 200)


def test_the_log_has_an_id_a_request_and_no_word_of_it(
    make: Callable[..., World], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_demo.observe.LOG.propagate", True)
    world = make("A secret reply.")
    with caplog.at_level("INFO", logger="llama_demo"):
        world.reply((Turn("user", "a secret question\nINFO forged line"),))
        world.completion("a secret prompt", stopper=Stopper(), sampling=Sampling(max_new_tokens=2))
    lines = [record.getMessage() for record in caplog.records]
    assert len({line.partition(" ")[0] for line in lines if line.startswith("request=")}) == 2
    assert "secret" not in caplog.text
    assert "forged" not in caplog.text

"""What a public server gives a stranger is the same at every door: the page, the Gradio API, `/v1` and MCP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from llama_demo.limits import Place
from llama_demo.visitors import Role, Visitor
from tests.strangers import PublicApp, ask, public_app
from tests.ui.test_classify_use import given as classified
from tests.ui.test_completions import asked as compared
from tests.ui.test_replies import question

REQUESTS = 3
"""That a stranger has in a minute."""
MODEL = "tiny-llama"
TEXT = "The harbour lies below"
LONG = "x" * 3000
"""More characters than the server reads."""
SAMPLING = {"temperature": 0, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1, "max_new_tokens": 2, "seed": None}
SHORT = {"max_new_tokens": 2, "temperature": 0}
Door = Callable[[PublicApp, httpx.Client, str], str]


def v1(path: str, body: Callable[[str], dict[str, Any]]) -> Door:
    def asks(_: PublicApp, client: httpx.Client, text: str) -> str:
        answer = client.post(f"/v1/{path}", json={**body(text), "max_tokens": 2})
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
        return answer.text

    return asks


def gradio(name: str, body: Callable[[str], dict[str, Any]]) -> Door:
    def asks(_: PublicApp, client: httpx.Client, text: str) -> str:
        event = client.post(f"/gradio_api/call/v2/{name}", json=body(text)).json()["event_id"]
        return client.get(f"/gradio_api/call/{name}/{event}").text

    return asks


def page(handler: str, values: Callable[[str], list[Any]]) -> Door:
    """An event of the page's own, by the name of what handles it."""

    def asks(app: PublicApp, client: httpx.Client, text: str) -> str:
        event = next(number for number, one in app.page.fns.items() if getattr(one.fn, "__name__", "") == handler)
        return ask(client, event, values(text))

    return asks


def mcp(tool: str, arguments: Callable[[str], dict[str, Any]]) -> Door:
    def asks(app: PublicApp, client: httpx.Client, text: str) -> str:
        async def run() -> str:
            async with (
                httpx.AsyncClient(cookies=client.cookies, headers=client.headers, timeout=20) as http,
                streamable_http_client(f"{app.address}/gradio_api/mcp/", http_client=http) as (reads, writes, _),
                ClientSession(reads, writes) as session,
            ):
                await session.initialize()
                return str((await session.call_tool(tool, arguments(text))).content)

        return asyncio.run(run())

    return asks


DOORS: dict[str, Door] = {
    "v1-chat": v1("chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
    "v1-completions": v1("completions", lambda text: {"prompt": text}),
    "v1-scores": v1("completions", lambda text: {"prompt": text, "logprobs": 1, "echo": True}),
    "gradio-chat": gradio("chat", lambda text: {"message": text, **SHORT}),
    "gradio-generate": gradio("generate", lambda text: {"prompt": text, **SHORT}),
    "gradio-score": gradio("score", lambda text: {"text": text}),
    "gradio-classify": gradio("classify", lambda text: {"texts": [text], "labels": ["sea", "land"]}),
    "page-chat": page(
        "reply",
        lambda text: [question(model=MODEL, turns=[{"role": "user", "content": text}], sampling=dict(SAMPLING))],
    ),
    "page-text": page("answer", lambda text: [compared({"model": MODEL, "prompt": text, "sampling": dict(SAMPLING)})]),
    "page-classify": page(
        "show_verdicts", lambda text: [{"id": "b", "language": "en"}, *classified(text=text, model=MODEL).values()]
    ),
    "mcp-chat": mcp("chat", lambda text: {"message": text, **SHORT}),
    "mcp-classify": mcp("classify", lambda text: {"texts": [text], "labels": ["sea", "land"]}),
}


@pytest.fixture(scope="module")
def app(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicApp]:
    """One that reads little, and believes this machine when it says whom it passes on."""
    given = {"model": str(tiny_folder), "visitor_requests": str(REQUESTS), "message_characters": "2000"}
    given |= {"concurrent": "2", "queue": "2", "trusted_proxies": "127.0.0.1"}
    with public_app(tmp_path_factory.mktemp("doors"), **given) as made:
        yield made


@contextmanager
def stranger(app: PublicApp, address: str, before: str = "") -> Iterator[httpx.Client]:
    """Whom the proxy says to be at `address`, and who says to have come through `before`."""
    with httpx.Client(base_url=app.address, timeout=60, headers={"x-forwarded-for": before + address}) as client:
        yield client


@pytest.mark.parametrize("door", DOORS)
def test_a_strangers_share_is_one_at_all_doors(app: PublicApp, door: str) -> None:
    address = f"10.1.1.{list(DOORS).index(door) + 1}"
    with stranger(app, address) as client:
        for _ in range(REQUESTS):
            assert "used up what" not in DOORS["v1-chat"](app, client, "hi")
        refused = DOORS[door](app, client, TEXT)
        assert re.search(r"used up what this server gives one visitor.*Try again in about \d+ seconds", refused)
    with stranger(app, "10.9.9.9" if door == "v1-chat" else f"10.9.1.{list(DOORS).index(door) + 1}") as another:
        assert "used up what" not in DOORS[door](app, another, TEXT)


@pytest.mark.parametrize("door", DOORS)
def test_where_the_line_is_full_every_door_says_so_and_when_to_come_again(app: PublicApp, door: str) -> None:
    admission = app.runtime._admission
    places: list[Place] = [admission.enter(Visitor("holder", Role.OWNER)) for _ in range(4)]
    try:
        with stranger(app, f"10.2.2.{list(DOORS).index(door) + 1}") as client:
            refused = DOORS[door](app, client, TEXT)
            assert re.search(r"busy: 2 requests are waiting. Try again in about \d+ seconds", refused)
            health = client.get("/health")
            assert (health.status_code, "busy" in health.json()["reason"]) == (503, True)
    finally:
        for place in places:
            place.leave()


@pytest.mark.parametrize("door", DOORS)
def test_no_door_reads_more_than_the_server_does(app: PublicApp, door: str) -> None:
    with stranger(app, f"10.3.3.{list(DOORS).index(door) + 1}") as client:
        assert re.search(
            r"has 3,?\d{3} characters, and this server takes at most 2,?000", DOORS[door](app, client, LONG)
        )


def test_an_address_is_what_the_trusted_proxy_adds_and_nothing_that_a_stranger_says(app: PublicApp) -> None:
    for number in range(REQUESTS):
        with stranger(app, "10.5.5.5", before=f"8.8.8.{number}, ") as client:
            assert "used up what" not in DOORS["v1-chat"](app, client, "hi")
    with stranger(app, "10.5.5.5", before="9.9.9.9, ") as client:
        assert "used up what" in DOORS["v1-chat"](app, client, "hi")
    with stranger(app, "10.5.5.6") as client:
        assert "used up what" not in DOORS["v1-chat"](app, client, "hi")


def test_nobody_is_believed_where_no_proxy_is_trusted(tiny_folder: Path, tmp_path: Path) -> None:
    with public_app(
        tmp_path, model=str(tiny_folder), visitor_requests=str(REQUESTS), trusted_proxies="10.0.0.1"
    ) as app:
        for number in range(REQUESTS):
            with stranger(app, f"10.5.6.{number}") as client:
                assert "used up what" not in DOORS["v1-chat"](app, client, "hi")
        with stranger(app, "10.5.6.99") as client:
            assert "used up what" in DOORS["v1-chat"](app, client, "hi")
            assert json.loads(DOORS["v1-chat"](app, client, "hi"))["error"]["type"] == "rate_limit_error"

"""Each of the owner's functions through each door: a visitor reaches none of them, and the owner on the page all.

What is the owner's is read from the code: whatever `Management` does, and what shares and publishes classifiers. A new
function of it, of the page or of a door is tried here by itself, or fails a test until it is said how it is asked.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from llama_demo.classify.sharing import Sharing
from llama_demo.classify.store import Heads
from llama_demo.management import Management
from llama_demo.metrics import Metrics
from llama_demo.runtime import Runtime
from llama_demo.ui.models import ModelsPage
from llama_demo.visitor_errors import OwnerOnly
from llama_demo.visitors import OWNER_COOKIE, VISITOR_COOKIE
from tests.strangers import PASSWORD, TOKEN, PublicApp, ask, call, public_app

TOLD = {"close", "is_granted", "pushed", "refusal"}
"""What `Management` tells, and its end: nothing that anybody asks for."""
MANAGED = {name for name, _ in inspect.getmembers(Management, inspect.isfunction) if name[0] != "_"} - TOLD
EVERYTHING = ("models", "pieces", "sheet")
"""What of a runtime tells the owner more than others."""
MODEL = "tinyllama-1.1b-chat"
CLASSIFIER = "kept"
ASKED = {"id": "one", "language": "en"}
ACTIONS = ("load", "unload", "cancel", "download", "convert", "check_access", "pin", "unpin")
TRIES: dict[str, list[dict[str, Any]]] = {
    "act": [{"do": do, "name": MODEL} for do in ACTIONS],
    "add_model": [{"path": "/etc"}],
    "sign_in": [{"token": TOKEN, "remember": True}],
    "push_model": [{"name": MODEL, "repo": "somebody/mine", "confirmed": True}],
    "read_models": [{}],
    "read_sheet": [{"name": MODEL}],
    "split_text": [{"name": MODEL, "text": "x"}],
    "read_status": [{}],
    "stop": [{"id": "one"}],
}
"""How the page asks each of its server functions for what is the owner's."""
VALUES = [ASKED, CLASSIFIER, "somebody/mine", False, True, True]
"""What the events that share and publish a classifier take, in their order; other events refuse it, or do with it what
everybody may."""
FORGED = {OWNER_COOKIE: f"{'0' * 32}.{'0' * 64}", VISITOR_COOKIE: "0" * 32}


class Reached(set[str]):
    """The owner's functions that somebody has got through to. They do nothing."""

    def instead_of(self, name: str) -> Callable[..., str]:
        def function(*_: object, **__: object) -> str:
            self.add(name)
            return "done"

        return function

    def generator(self, name: str) -> Callable[..., AsyncGenerator[None, None]]:
        async def function(*_: object, **__: object) -> AsyncGenerator[None, None]:
            self.add(name)
            return
            yield

        return function

    def unless_refused(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """For what looks by itself who asks."""

        def function(*given: object, **named: object) -> Any:
            try:
                return real(*given, **named)
            except OwnerOnly:
                raise
            except Exception:
                self.add(name)
                raise

        return function

    def where_everything(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """For what everybody may ask, and the owner for more."""

        def function(*given: object, everything: bool = False, **named: object) -> Any:
            if everything:
                self.add(name)
            return real(*given, everything=everything, **named)

        return function


@pytest.fixture(scope="module")
def reached() -> Reached:
    return Reached()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, reached: Reached) -> Iterator[PublicApp]:
    with pytest.MonkeyPatch.context() as patch:
        for name in MANAGED:
            patch.setattr(Management, name, reached.instead_of(name))
        for name in ("push", "export"):
            patch.setattr(Sharing, name, reached.generator(f"{name} of a classifier"))
        patch.setattr(Heads, "publish", reached.unless_refused("publish", Heads.publish))
        patch.setattr(Metrics, "text", reached.instead_of("metrics"))
        for name in EVERYTHING:
            patch.setattr(Runtime, name, reached.where_everything(f"all {name}", getattr(Runtime, name)))
        with public_app(tmp_path_factory.mktemp("owners")) as made:
            yield made


@pytest.fixture
def client(app: PublicApp, reached: Reached) -> Iterator[httpx.Client]:
    reached.clear()
    with httpx.Client(base_url=app.address, timeout=20) as client:
        yield client


def ask_page(app: PublicApp, client: httpx.Client) -> list[str]:
    """All that the page can ask for, asked as its owner would; what was said."""
    said = [call(client, part, name, asked).text for part, name in app.server_functions() for asked in TRIES[name]]
    for event, _, width in app.events():
        values = [*VALUES, *[None] * width][:width]
        said.append(ask(client, event, values))
        body = {"data": values, "fn_index": event, "session_hash": "s"}
        said.append(client.post("/gradio_api/run/predict", json=body).text)
    said.append(client.get("/metrics").text)
    return said


def test_the_page_can_ask_for_nothing_that_is_not_tried_here(app: PublicApp) -> None:
    assert {name for _, name in app.server_functions()} == set(TRIES)
    assert set(ModelsPage(app.runtime)._actions) == set(ACTIONS)


def test_the_owner_reaches_each_of_the_owners_functions_on_the_page(
    app: PublicApp, client: httpx.Client, reached: Reached
) -> None:
    assert client.post("/owner", json={"password": PASSWORD}).status_code == 204
    ask_page(app, client)
    others = {"push of a classifier", "export of a classifier", "publish", "metrics"}
    assert reached == MANAGED | others | {f"all {name}" for name in EVERYTHING}


@pytest.mark.parametrize("cookies", [{}, FORGED], ids=["none", "forged"])
def test_a_visitor_reaches_none_on_the_page(
    app: PublicApp, client: httpx.Client, reached: Reached, cookies: dict[str, str]
) -> None:
    client.cookies.update(cookies)
    said = ask_page(app, client)
    assert reached == set()
    assert sum("Only the owner" in text for text in said) >= len(ACTIONS) + 3


@pytest.mark.slow
def test_a_visitor_reaches_none_through_the_gradio_api(app: PublicApp, client: httpx.Client, reached: Reached) -> None:
    for name in {name for _, name, _ in app.events()} | set(TRIES) | MANAGED:
        for asked in TRIES.get(name, [{"do": "load", "name": MODEL, "path": "/etc", "token": TOKEN}]):
            for values in ([asked], VALUES):
                for door in ("call", "run", "api"):
                    client.post(f"/gradio_api/{door}/{name}", json={"data": values})
            client.post(f"/gradio_api/call/v2/{name}", json=asked)
    assert reached == set()


@pytest.mark.slow
def test_a_visitor_reaches_none_through_mcp(app: PublicApp, client: httpx.Client, reached: Reached) -> None:
    async def run() -> list[str]:
        async with (
            streamable_http_client(f"{app.address}/gradio_api/mcp/") as (reads, writes, _),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            offered = {tool.name for tool in (await session.list_tools()).tools}
            assert not offered & (MANAGED | set(TRIES))
            names = {name for _, name, _ in app.events()} | set(TRIES) | MANAGED
            said = []
            for name in sorted(names - offered):
                for asked in TRIES.get(name, [{"do": "load", "name": MODEL}]):
                    result = await session.call_tool(name, asked)
                    said.append(str(result.content))
                    assert result.isError, name
            return said

    assert all("Unknown tool" in text for text in asyncio.run(run()))
    assert reached == set()


def test_a_visitor_reaches_none_through_any_path_and_method(
    app: PublicApp, client: httpx.Client, reached: Reached
) -> None:
    routes = app.routes()
    assert {"/owner", "/metrics", "/v1/chat/completions", "/gradio_api/component_server"} <= {
        path for path, _ in routes
    }
    bodies = [asked for asks in TRIES.values() for asked in asks]
    for path, methods in routes:
        for method in methods:
            for asked in bodies if method in ("POST", "PUT", "PATCH", "DELETE") else bodies[:1]:
                tried = httpx.Request(method, app.address + re.sub(r"\{[^}]*\}", MODEL, path), json=asked, params=asked)
                answer = client.send(tried, stream=True)
                answer.close()
                assert answer.status_code < 500, (method, path)
    assert reached == set()


def test_who_has_a_key_or_a_wrong_password_has_no_more(client: httpx.Client, reached: Reached) -> None:
    for header in ("Bearer sk-anything", f"Bearer {PASSWORD[:-1]}", f"Basic {PASSWORD}"):
        assert client.get("/metrics", headers={"Authorization": header}).status_code in (403, 429)
    assert reached == set()
    assert json.loads(client.get("/owner").text) == {"owner": False}

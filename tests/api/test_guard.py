"""Who is let in: by keys, or by names and passwords, at every door that they guard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from gradio_client import Client
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from llama_demo.api.guard import Guard
from llama_demo.credentials import ApiKeys, Users, new_key, password_line
from llama_demo.messages import messages
from llama_demo.visitors import CALLER
from tests.api.conftest import launched
from tests.ui.scripted import scripted
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    file = tmp_path_factory.mktemp("users") / "users"
    file.write_text(password_line("ann", "open sesame"))
    return Users(file)


@pytest.fixture(scope="module")
def page(users: Users) -> Iterator[str]:
    """The address of a page with a password."""
    runtime = scripted()
    runtime.users = users
    with launched(runtime) as address:
        yield address


class Turns:
    """Of those who check passwords: who has come waits until all may go on."""

    def __init__(self) -> None:
        self.come, self.may_go = threading.Event(), threading.Event()

    def acquire(self, timeout: float) -> bool:
        self.come.set()
        return self.may_go.wait(PATIENCE_SECONDS)

    def release(self) -> None:
        """Nobody else waits for it."""


def test_while_a_password_is_checked_at_the_page_others_are_answered(
    page: str, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    monkeypatch.setattr(users, "_turns", turns)
    guess = {"username": "ann", "password": "wrong"}
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{page}/login", data=guess, timeout=PATIENCE_SECONDS)
        try:
            assert turns.come.wait(PATIENCE_SECONDS)
            assert httpx.get(f"{page}/config", timeout=PATIENCE_SECONDS / 2).status_code == 401
        finally:
            turns.may_go.set()
        assert asked.result().status_code == 400


@pytest.mark.parametrize("prefix", ["", "/llama", "/llama/llama"])
@pytest.mark.parametrize("path", ["/v1/models", "/gradio_api/mcp/schema"])
def test_a_page_behind_a_prefix_is_guarded_under_it_too(
    users: Users, path: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/llama")
    runtime = scripted()
    runtime.users = users
    with launched(runtime) as address:
        assert httpx.get(f"{address}{prefix}{path}").status_code == 401
        assert httpx.get(f"{address}{prefix}{path}", auth=("ann", "open sesame")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/gradio_api/info",
        "/gradio_api/queue/data?session_hash=a",
        "/gradio_api/mcp/",
        "/gradio_api/mcp/schema",
        "/gradio_api/mcp/sse",
        "/v1/models",
        "/v1/openapi.json",
        "/v1/nothing",
    ],
)
def test_with_a_file_of_users_no_door_is_open_to_strangers(page: str, path: str) -> None:
    wrong = {"Authorization": "Bearer ann:wrong"}
    for headers in ({}, wrong):
        assert httpx.get(page + path, headers=headers).status_code == 401


def test_strangers_can_neither_ask_nor_upload(page: str) -> None:
    for path in ("queue/join", "upload", "call/chat", "run/chat"):
        assert httpx.post(f"{page}/gradio_api/{path}", json={"data": ["hi"], "session_hash": "a"}).status_code == 401
    assert httpx.post(f"{page}/v1/chat/completions", json={}).json()["error"]["code"] == "invalid_api_key"


def test_who_knows_the_password_is_let_in_everywhere(page: str) -> None:
    assert Client(page, auth=("ann", "open sesame"), verbose=False).predict("hi", api_name="/chat") == "You said: hi"
    assert httpx.get(f"{page}/v1/models", auth=("ann", "open sesame")).status_code == 200
    bearer = {"Authorization": "Bearer ann:open sesame"}
    assert httpx.get(f"{page}/v1/models", headers=bearer).json()["object"] == "list"
    with pytest.raises(Exception, match="Could not login"):
        Client(page, auth=("ann", "wrong"), verbose=False)


def guarded(api_keys: ApiKeys | None, users: Users | None) -> TestClient:
    """What the guard lets through, and for whom."""

    def who(request: Request) -> JSONResponse:
        return JSONResponse(getattr(request.state, CALLER, None))

    runtime: Any = SimpleNamespace(api_keys=api_keys, users=users, messages=messages)
    paths = ("/v1/models", "/v1x", "/gradio_api/mcp/")
    return TestClient(Starlette(routes=[Route(path, who) for path in paths], middleware=[Middleware(Guard, runtime)]))


def test_keys_guard_the_api_alone_and_passwords_do_not_open_it(tmp_path: Path, users: Users) -> None:
    (key, line), (other, another) = new_key("a"), new_key("b")
    (tmp_path / "keys").write_text(f"{line}\n{another}\n")
    with guarded(ApiKeys(tmp_path / "keys"), users) as client:
        callers = {
            client.get("/v1/models", headers={"Authorization": f"Bearer {one}"}).json() for one in (key, other, key)
        }
        assert len(callers) == 2
        assert key not in str(callers)
        for header in ("", key, f"Basic {key}", "Bearer", f"Bearer {key}x", "Bearer ann:open sesame"):
            answer = client.get("/v1/models", headers={"Authorization": header})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", auth=("ann", "open sesame")).status_code == 401
        assert client.get("/v1x").status_code == 200
        assert client.get("/gradio_api/mcp/").status_code == 401
        assert client.get("/gradio_api/mcp/", auth=("ann", "open sesame")).status_code == 200
        assert client.get("/gradio_api/mcp/", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    with guarded(ApiKeys(tmp_path / "keys"), None) as client:
        assert client.get("/gradio_api/mcp/").status_code == 200


def test_without_either_file_everybody_is_let_in() -> None:
    with guarded(None, None) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "Bearer anything"}).json() is None


@pytest.mark.parametrize(
    "given", ["Basic !!!", "Basic YW5u", "Basic gICA", "Digest x", "Bearer \N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_header_that_cannot_be_read_is_no_key(users: Users, given: str) -> None:
    with guarded(None, users) as client:
        assert client.get("/v1/models", headers=[(b"authorization", given.encode("latin-1"))]).status_code == 401

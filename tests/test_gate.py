"""What never gets past the door, over real routes in a real ASGI app; `test_attacks` has what needs a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from llama_demo.api import gate
from llama_demo.api.gate import gates
from llama_demo.api.owner import owner_routes
from llama_demo.visitors import ATTEMPTS, OWNER_COOKIE, VISITOR_COOKIE, address_of
from tests.ui.scripted import scripted

PASSWORD = "correct horse"
Open = Callable[..., TestClient]


@pytest.fixture
def connect() -> Iterator[Open]:
    """Opens a server with the given settings: its home page, the sum of what is sent to it, and `/owner`."""
    opened: list[TestClient] = []

    def open_(base_url: str = "http://127.0.0.1:7860", **settings: Any) -> TestClient:
        runtime = scripted(**settings)

        async def home(_: Request) -> Response:
            return Response("home")

        async def count(request: Request) -> Response:
            role = runtime.visitors.of(request).role
            return JSONResponse({"bytes": len(await request.body()), "role": role, "host": address_of(request)})

        routes = [Route("/", home), Route("/count", count, methods=["GET", "POST"]), *owner_routes(runtime)]
        client = TestClient(Starlette(routes=routes, middleware=gates(runtime)), base_url, client=("10.1.1.1", 5000))
        opened.append(client)
        return client.__enter__()

    yield open_
    for client in opened:
        client.__exit__()


def test_the_page_gives_a_browser_one_cookie_that_scripts_cannot_read(connect: Open) -> None:
    client = connect()
    made = client.get("/").headers["set-cookie"]
    assert made.startswith(f"{VISITOR_COOKIE}=")
    assert "HttpOnly" in made
    assert "SameSite=Lax" in made
    assert "set-cookie" not in client.get("/").headers
    assert "set-cookie" not in client.get("/count").headers


def test_on_a_space_the_cookie_lives_in_the_frame_of_the_page_around_it(connect: Open) -> None:
    answer = connect("https://owner-space.hf.space", space=True, public=True).get("/")
    assert answer.headers["set-cookie"].endswith("SameSite=None; Secure; Partitioned")
    assert "huggingface.co" in answer.headers["content-security-policy"]


def test_no_other_site_may_frame_the_page_or_give_it_pictures(connect: Open) -> None:
    policy = connect().get("/").headers["content-security-policy"]
    assert policy == "frame-ancestors 'self'; img-src 'self' data: blob:"


def test_every_answer_has_an_id_of_the_servers_own(connect: Open) -> None:
    client = connect()
    ids = {client.get("/", headers={"x-request-id": "forged\tid"}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert not any("forged" in one for one in ids)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": "http://127.0.0.1:7860"}, 200),
        ("POST", {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": "http://127.0.0.1:3000"}, 403),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ("GET", {"origin": "http://evil.example"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_another_sites_page_may_link_here_and_nothing_else(
    connect: Open, method: str, headers: dict[str, str], status: int
) -> None:
    assert connect().request(method, "/count", headers=headers).status_code == status


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1", "a b"])
def test_a_private_server_answers_to_no_name_that_somebody_pointed_at_it(connect: Open, host: str) -> None:
    client = connect()
    answer = client.get("/count", headers={"host": host})
    assert answer.status_code == 403
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7860", "[::1]:7860", "192.168.0.7:7860", "app.localhost"])
def test_a_private_server_answers_to_this_machines_names(connect: Open, host: str) -> None:
    assert connect().get("/count", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["demo.example", "demo.example:443", "[2001:db8::1]:7860", "my_host"])
@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
def test_a_public_server_answers_to_any_name(connect: Open, host: str, header: str) -> None:
    assert connect(public=True).get("/count", headers={header: host}).status_code == 200


@pytest.mark.parametrize("host", ["[::1", "a b", 'a"><script>', "a/b", "a@b", "a:b", "a:999999", "\xe4.example"])
@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
def test_what_is_no_name_of_a_server_is_no_address_of_the_page(connect: Open, host: str, header: str) -> None:
    assert connect(public=True).get("/count", headers={header.encode(): host.encode("latin-1")}).status_code == 400


def test_gradio_is_told_nothing_long_in_an_address(connect: Open) -> None:
    client = connect()
    for path, length, status in (("gradio_api/x", 900, 404), ("gradio_api/x", 1000, 400), ("count", 4000, 200)):
        assert client.get(f"/{path}?x={'u' * length}").status_code == status


@pytest.mark.parametrize("path", ["/count", gate.UPLOAD_PATH, "/nowhere"])
def test_a_body_of_100_mb_is_refused_before_it_is_read(connect: Open, path: str) -> None:
    answer = connect(public=True).post(path, content=b"", headers={"content-length": "100000000"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "BodyTooLarge"


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_BYTES", 1000)
    client = connect()
    assert client.post("/count", content=iter([b"x" * 500] * 2)).json()["bytes"] == 1000
    answer = client.post("/count", content=iter([b"x" * 500] * 3))
    assert answer.status_code == 413
    assert "1 kB" in answer.json()["detail"]


def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.05)
    heard: list[Message] = []
    pieces = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def read(request: Request) -> Response:
        return Response(await request.body())

    async def receive() -> Message:
        if pieces:
            return pieces.pop()
        await asyncio.Event().wait()
        raise AssertionError("never comes")

    async def send(message: Message) -> None:
        heard.append(message)

    app = Starlette(routes=[Route("/", read, methods=["POST"])], middleware=gates(scripted()))
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    asyncio.run(app({**scope, "client": ("10.1.1.1", 1), "server": ("127.0.0.1", 1), "scheme": "http"}, receive, send))
    assert heard[0]["status"] == 408


def test_the_owner_unlocks_this_browser_and_locks_it_again(connect: Open) -> None:
    client = connect(public=True, owner_password=PASSWORD)
    assert client.get("/count").json()["role"] == "anonymous"
    unlocked = client.post("/owner", json={"password": PASSWORD})
    assert unlocked.status_code == 204
    assert "HttpOnly" in unlocked.headers["set-cookie"]
    assert PASSWORD not in str(unlocked.headers)
    assert client.get("/owner").json() == {"owner": True}
    assert client.get("/count").json()["role"] == "owner"
    assert client.delete("/owner").status_code == 204
    assert OWNER_COOKIE not in client.cookies
    assert client.get("/count").json()["role"] == "anonymous"


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b'{"password": 3}', b'{"password": "wrong"}', b"\xff"])
def test_what_is_no_password_unlocks_nothing_and_is_not_said_back(connect: Open, body: bytes) -> None:
    client = connect(public=True, owner_password=PASSWORD)
    answer = client.post("/owner", content=body)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "wrong" not in answer.text
    assert not client.get("/owner").json()["owner"]


def test_guessing_the_password_ends_after_a_few_attempts(connect: Open) -> None:
    client = connect(public=True, owner_password=PASSWORD)
    for _ in range(ATTEMPTS):
        assert client.post("/owner", json={"password": "guess"}).status_code == 403
    refused = client.post("/owner", json={"password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0

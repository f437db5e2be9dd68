"""The Space's owner signs in at the Hub: a stand-in for its OAuth pages, and what comes of honest and other answers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llama_demo.api.owner import owner_routes
from llama_demo.api.sign_in import PATH, STATE_COOKIE, sign_in_routes
from llama_demo.hub_identity import CALLBACK, SCOPES
from llama_demo.messages import messages
from llama_demo.settings import read_settings
from llama_demo.space import SignIn
from llama_demo.visitors import Visitors
from tests import space

HOST = "somebody-llama-demo.hf.space"
SECRET = "secret of the application"


@dataclass
class Provider:
    """Who signs in there, and what it was asked. Its answers may have a `fault`: they are no "json", or no "http"."""

    url: str = ""
    name: str = "somebody"
    fault: str = ""
    asked: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)


@pytest.fixture
def provider() -> Iterator[Provider]:
    acts = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            acts.asked.append((self.path, self.headers["authorization"], body))
            self.answer({"access_token": "hf_oauth_token"} if body.get("code") == ["good"] else None)

        def do_GET(self) -> None:
            acts.asked.append((self.path, self.headers["authorization"], {}))
            self.answer({"sub": "1", "preferred_username": acts.name})

        def answer(self, said: dict[str, str] | None) -> None:
            if acts.fault == "http":
                self.wfile.write(b"<html>\r\n\r\n")
                return
            self.send_response(400 if said is None else 200)
            self.end_headers()
            body = json.dumps(said or {"error": "invalid_grant"}).encode()
            self.wfile.write(b"<html>" if acts.fault == "json" else body)

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for a request log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        acts.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield acts
        server.shutdown()


@pytest.fixture
def tokens() -> list[str]:
    """What the Hub is used with afterwards."""
    return []


@pytest.fixture
def client(provider: Provider, tokens: list[str]) -> TestClient:
    settings = SimpleNamespace(sign_in=SignIn(provider.url, "the-client", SECRET, HOST, "somebody"), space=True)
    runtime: Any = SimpleNamespace(
        settings=settings,
        visitors=Visitors(public=True, password=""),
        messages=messages,
        management=SimpleNamespace(sign_in=tokens.append),
    )
    app = Starlette(routes=[*sign_in_routes(runtime), *owner_routes(runtime)])
    return TestClient(app, base_url=f"https://{HOST}", follow_redirects=False)


def begun(client: TestClient) -> dict[str, str]:
    """What the Hub's page is asked."""
    answer = client.get(PATH)
    assert answer.status_code == 303
    return {name: value for name, (value,) in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def test_the_owner_signs_in_at_the_hub_and_comes_back_with_the_owners_cookie(
    client: TestClient, provider: Provider, tokens: list[str]
) -> None:
    asked = begun(client)
    assert asked["redirect_uri"] == f"https://{HOST}{CALLBACK}"
    assert (asked["client_id"], asked["scope"], asked["response_type"]) == ("the-client", SCOPES, "code")
    assert client.get("/owner").json() == {"owner": False}
    answer = client.get(CALLBACK, params={"code": "good", "state": asked["state"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/owner").json() == {"owner": True}
    assert tokens == ["hf_oauth_token"]
    (path, basic, body), (where, bearer, _) = provider.asked
    assert (path, where) == ("/oauth/token", "/oauth/userinfo")
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == f"the-client:{SECRET}"
    assert body["redirect_uri"] == [asked["redirect_uri"]]
    assert bearer == "Bearer hf_oauth_token"


@pytest.mark.parametrize("name", ["somebody-else", "", "SOMEBODY"])
def test_anybody_else_who_signs_in_is_no_owner(
    client: TestClient, provider: Provider, tokens: list[str], name: str
) -> None:
    provider.name = name
    answer = client.get(CALLBACK, params={"code": "good", "state": begun(client)["state"]})
    assert answer.status_code == 403
    assert "belongs to somebody" in answer.text
    assert client.get("/owner").json() == {"owner": False}
    assert not tokens


@pytest.mark.parametrize("state", ["", "0" * 32, "é"])
def test_an_answer_that_this_browser_did_not_ask_for_is_not_taken(
    client: TestClient, provider: Provider, state: str
) -> None:
    begun(client)
    assert client.get(CALLBACK, params={"code": "good", "state": state}).status_code == 403
    client.cookies.delete(STATE_COOKIE)
    assert client.get(CALLBACK, params={"code": "good"}).status_code == 403
    assert not provider.asked
    assert client.get("/owner").json() == {"owner": False}


@pytest.mark.parametrize(("code", "fault"), [("bad", ""), ("", ""), ("good", "json"), ("good", "http")])
def test_a_code_that_the_hub_refuses_or_an_answer_that_makes_no_sense_opens_nothing(
    client: TestClient, provider: Provider, code: str, fault: str
) -> None:
    provider.fault = fault
    answer = client.get(CALLBACK, params={"code": code, "state": begun(client)["state"]})
    assert answer.status_code == 403
    assert SECRET not in answer.text
    assert client.get("/owner").json() == {"owner": False}


def test_a_token_that_the_space_was_given_as_a_secret_stays(
    client: TestClient, tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    assert client.get(CALLBACK, params={"code": "good", "state": begun(client)["state"]}).status_code == 303
    assert not tokens


def test_a_space_has_it_where_its_header_asked_for_it_and_nothing_else_has() -> None:
    header = space.header()
    assert header["hf_oauth"] is True
    assert SCOPES.split() == ["openid", "profile", *header["hf_oauth_scopes"]]
    given = {
        "SPACE_ID": "somebody/llama-demo",
        "SPACE_HOST": f"{HOST},chat.example",
        "SPACE_AUTHOR_NAME": "somebody",
        "OPENID_PROVIDER_URL": "https://huggingface.co/",
        "OAUTH_CLIENT_ID": "the-client",
        "OAUTH_CLIENT_SECRET": SECRET,
    }
    settings = read_settings({}, given)
    assert settings.sign_in == SignIn("https://huggingface.co", "the-client", SECRET, HOST, "somebody")
    assert SECRET not in repr(settings)
    for name in given:
        assert read_settings({}, {**given, name: ""}).sign_in is None
    runtime: Any = SimpleNamespace(settings=read_settings({}, {}))
    assert sign_in_routes(runtime) == []

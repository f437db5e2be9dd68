"""What strangers may try on a public server, over real sockets: the app as `serve` starts it, without a model."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from llama_demo import ui
from llama_demo.api import connections, gate, uploads
from tests.strangers import PASSWORD, SECRETS, TOKEN, PublicApp, ask, call, public_app, unsaid

HEAD_SECONDS = 1.0
FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
CROWD = 500


class Canary(BaseHTTPRequestHandler):
    """A service that only this machine may reach. It remembers who did."""

    asked: list[str] = []  # noqa: RUF012 one list for all requests

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"internal secret")

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Lines(logging.Handler):
    """Everything that is logged, by us or by the libraries."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    """What is logged in all tests of this file: at their end it is looked through for secrets."""
    handler = Lines()
    loggers = [logging.getLogger(name) for name in ("", "llama_demo", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    logging.getLogger("llama_demo").setLevel(logging.DEBUG)
    yield handler.lines
    for logger in loggers:
        logger.removeHandler(handler)
    logging.getLogger("llama_demo").setLevel(logging.NOTSET)
    for line in handler.lines:
        unsaid(line)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, log: list[str]) -> Iterator[PublicApp]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_SECONDS", HEAD_SECONDS)
        with public_app(tmp_path_factory.mktemp("attacks")) as made:
            yield made


@pytest.fixture(scope="module")
def address(app: PublicApp) -> str:
    return app.address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    """A stranger's. Whatever it hears, in whichever test, holds no secret; and the server is well afterwards."""

    def look(answer: httpx.Response) -> None:
        unsaid(str(answer.headers))
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()
            unsaid(answer.text)

    with httpx.Client(base_url=address, timeout=20, event_hooks={"response": [look]}) as client:
        yield client
        assert client.get("/health").status_code == 200


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/queue/join", "/v1/chat/completions", "/owner", "/gradio_api/upload", "/gradio_api/mcp/"],
)
def test_100_mb_are_refused_when_they_say_so_and_cut_off_when_they_do_not(
    client: httpx.Client, address: str, path: str
) -> None:
    with connect(address) as raw:
        raw.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n".encode())
        assert raw.recv(65536).split()[1] == b"413"
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1600):
            sent += 65536
            yield b"0" * 65536 if sent > 65536 else FORM + b"0" * 65536

    kind = "multipart/form-data; boundary=x" if "upload" in path else "application/json"
    try:
        answer = client.post(path, content=body(), headers={"content-type": kind})
    except httpx.TransportError:
        pass  # the connection was ended in mid-body
    else:
        assert answer.status_code in (400, 413)
    assert sent < 60_000_000


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/queue/join",
        "/gradio_api/call/chat",
        "/gradio_api/run/chat",
        "/gradio_api/component_server",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/mcp/",
        "/gradio_api/mcp/messages/",
        "/owner",
        "/v1/chat/completions",
        "/v1/completions",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"data": 7, "fn_index": "x", "session_hash": []}',
        b'{"data": [{}], "fn_index": 99999, "session_hash": "s"}',
        b'{"messages": {}, "model": []}',
    ],
    ids=["deep-list", "deep-object", "empty", "bytes", "null", "list", "types", "no-event", "v1-types"],
)
def test_what_is_no_request_is_refused_in_a_sentence(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text


def test_500_connections_that_say_nothing_keep_nobody_out_and_are_ended(address: str, client: httpx.Client) -> None:
    crowd = [connect(address) for _ in range(CROWD)]
    try:
        for number, one in enumerate(crowd):
            one.sendall((b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")[number % 3])
        assert client.get("/health").status_code == 200
        for one in crowd:
            assert one.recv(65536) == b""
    finally:
        for one in crowd:
            one.close()


def test_a_body_that_stops_in_the_middle_is_answered_and_ended(
    address: str, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.2)
    with connect(address) as half:
        head = "POST /gradio_api/queue/join HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
        half.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        heard = half.recv(65536)
        assert heard.split(b"\r\n")[0].endswith((b"408 Request Timeout", b"400 Bad Request"))
        while heard:
            heard = half.recv(65536)


PATHS_OF_FILES = {"/gradio_api/file={path_or_url:path}", "/gradio_api/file/{path:path}", "/static/{path:path}"}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/proc/self/environ",
        str(Path(ui.__file__).parent.parent / "settings.py"),
        "app.py",
    ],
)
def test_no_file_of_the_machine_is_given_out_by_any_path(app: PublicApp, client: httpx.Client, path: str) -> None:
    """Whatever has a place for a name in its address is asked: Gradio's next version may have more of them."""
    open_paths = {one for one, methods in app.routes() if "GET" in methods and "{" in one and "heartbeat" not in one}
    assert open_paths > PATHS_OF_FILES
    for one in open_paths:
        answer = client.get(re.sub(r"\{[^}]*\}", lambda _: path, one))
        told = answer.headers["content-type"].startswith("text/event-stream") and "not found" in answer.text.lower()
        assert told or answer.status_code in (400, 403, 404, 405, 422), one
        for secret in ("root:", "import argparse"):
            assert secret not in answer.text


@pytest.mark.parametrize("name", ["../../../../tmp/escaped.txt", "/etc/cron.d/evil", "a\x00b.txt", "..", "x" * 3000])
def test_an_upload_is_kept_where_uploads_are_and_under_no_name_of_its_own_choice(
    client: httpx.Client, name: str
) -> None:
    answer = client.post("/gradio_api/upload", files={"files": (name, b"harmless")})
    assert answer.status_code < 500
    if answer.status_code == 200:
        (path,) = answer.json()
        assert re.search(r"gradio", path)
        assert ".." not in Path(path).parts
    assert not Path("/tmp/escaped.txt").exists()
    assert not Path("/etc/cron.d/evil").exists()


def test_a_stranger_who_uploads_without_end_is_held_up_and_no_other(client: httpx.Client) -> None:
    client.get("/")  # gives a cookie: a visitor of its own
    answers = [client.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}) for _ in range(uploads.A_MINUTE + 1)]
    assert [answer.status_code for answer in answers] == [200] * uploads.A_MINUTE + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    client.cookies.clear()
    client.get("/")
    assert client.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 200


def test_what_is_no_upload_leaves_no_file(
    app: PublicApp, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    part, name = app.server_functions()[0]
    fields = {"component_id": str(part), "fn_name": name, "session_hash": "s"}
    answer = client.post("/gradio_api/component_server", data=fields, files={"a": ("a.txt", b"x" * 100)})
    assert answer.status_code == 400
    assert not list(tmp_path.iterdir())


def test_an_uploaded_page_is_never_shown_as_one(client: httpx.Client) -> None:
    for name in ("evil.html", "evil.svg", "evil.xhtml"):
        page = b"<script>alert(1)</script>"
        (path,) = client.post("/gradio_api/upload", files={"files": (name, page, "text/html")}).json()
        shown = client.get(f"/gradio_api/file={path}")
        assert "attachment" in shown.headers.get("content-disposition", "") or shown.status_code in (403, 404)
        assert shown.headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_no_field_makes_the_server_fetch_an_address_or_read_a_file(
    app: PublicApp, client: httpx.Client, canary: str
) -> None:
    Canary.asked.clear()
    secret = f"{canary}/secret"
    files: list[Any] = [
        {"path": secret, "url": secret, "meta": {"_type": "gradio.FileData"}},
        {"path": secret, "meta": {"_type": "gradio.FileData"}},
        {"url": secret, "orig_name": "x", "meta": {"_type": "gradio.FileData"}},
        [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
        secret,
    ]
    said = [ask(client, event, [file] * count) for event, _, count in app.events() for file in files]
    said += [call(client, part, name, file).text for part, name in app.server_functions() for file in files]
    for text in said:
        assert "internal secret" not in text
        assert "root:" not in text
        assert "Traceback" not in text
    for path in (f"/gradio_api/proxy={secret}", f"/gradio_api/file={secret}", f"/gradio_api/file=proxy={secret}"):
        assert "internal secret" not in client.get(path, follow_redirects=False).text
    assert Canary.asked == []


@pytest.fixture
def outside(canary: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The canary by a name that Gradio takes for an address of the internet, where it fetches from."""

    async def known(_: str) -> str:
        return "127.0.0.1"

    monkeypatch.setattr("safehttpx.async_validate_url", known)
    Canary.asked.clear()
    return f"http://canary.example:{canary.rpartition(':')[2]}"


@pytest.mark.parametrize("path", ["file=", "file/"])
def test_no_address_of_the_internet_is_passed_on(client: httpx.Client, outside: str, path: str) -> None:
    for address in (outside, outside.replace("http:", "https:")):
        answer = client.get(f"/gradio_api/{path}{address}/x.png")
        assert answer.json()["error"]["code"] == "UnknownPath"
    assert Canary.asked == []


def test_no_address_of_the_internet_is_fetched_for_an_input(client: httpx.Client, outside: str) -> None:
    file = {"path": f"{outside}/file", "meta": {"_type": "gradio.FileData"}}
    asked = client.post("/gradio_api/call/score", json={"data": [file, "", 1]}).json()
    assert "error" in client.get(f"/gradio_api/call/score/{asked['event_id']}").text
    assert Canary.asked == []


def test_no_model_classifier_picture_or_callback_is_fetched_from_where_a_program_says(
    client: httpx.Client, canary: str
) -> None:
    Canary.asked.clear()
    secret = f"{canary}/v1"
    words = [{"role": "user", "content": "hi"}]
    for kind in ("image_url", "input_audio", "file"):
        part = {"type": kind, kind: {"url": secret, "file_data": secret, "data": secret}}
        refused = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
        assert refused.status_code == 400
    for name in (secret, f"hf.co/{secret}", f"../../{secret}", f"file://{secret}", f"\\\\{secret}"):
        refused = client.post("/v1/chat/completions", json={"messages": words, "model": name})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert client.get(f"/v1/models/{name}").status_code == 404
    for field in ("base_url", "remote_model", "webhook", "url", "proxy", "adapter", "tokenizer"):
        refused = client.post("/v1/completions", json={"prompt": "hi", field: secret})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")
    named = client.get("/gradio_api/info").json()["named_endpoints"]
    for name, endpoint in named.items():
        values = {parameter["parameter_name"]: secret for parameter in endpoint["parameters"]}
        event = client.post(f"/gradio_api/call/v2{name}", json=values)
        assert "internal secret" not in event.text
        if event.status_code == 200:
            unsaid(client.get(f"/gradio_api/call{name}/{event.json()['event_id']}").text)
    assert Canary.asked == []


def test_no_tool_fetches_an_address(address: str, canary: str) -> None:
    Canary.asked.clear()

    async def run() -> list[str]:
        async with (
            streamable_http_client(f"{address}/gradio_api/mcp/") as (reads, writes, _),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            said = []
            for tool in (await session.list_tools()).tools:
                given = dict.fromkeys(tool.inputSchema["properties"], f"{canary}/secret")
                said.append(str((await session.call_tool(tool.name, given)).content))
            return said

    said = asyncio.run(run())
    assert len(said) == 4
    assert "internal secret" not in unsaid("".join(said))
    assert Canary.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "proxy=https://example.com/",
        "custom_component/dropdown/client/component/index.js",
        "deep_link?session_hash=s",
        "dev/reload",
        "process_recording",
        "profiling/traces",
        "run-history/buckets",
        "vibe-edit/",
        "vibe-code/",
        "vibe-starter-queries/",
        "undo-vibe-edit/",
    ],
)
def test_what_gradio_offers_and_the_app_does_not_use_is_not_there(client: httpx.Client, path: str) -> None:
    for answer in (client.get(f"/gradio_api/{path}"), client.post(f"/gradio_api/{path}", json={})):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "UnknownPath"
    assert client.get("/monitoring/summary").json()["error"]["code"] == "UnknownPath"


def test_who_listens_to_a_visit_that_is_not_there_hears_so_and_the_log_has_no_traceback(
    client: httpx.Client, log: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(log)
    for path in ("queue/data?session_hash=nobody", "call/chat/nobody"):
        assert "not found" in client.get(f"/gradio_api/{path}").text.lower()
    for path in ("call/nothing", "run/nothing", "run/predict", "call/v2/nothing"):
        assert 400 <= client.post(f"/gradio_api/{path}", json={"data": [], "fn_index": 99999}).status_code < 500
    for event in (0, 1, 2):
        body = {"data": [[], "a secret\nINFO forged"], "fn_index": event, "session_hash": "s"}
        assert client.post("/gradio_api/run/predict", json=body).status_code < 500
    said = "\n".join(log[before:]) + "".join(capfd.readouterr())
    for word in ("Traceback", "forged", "secret", "ASGI"):
        assert word not in said


@pytest.mark.parametrize("name", ["models", "classify", "picker"])
def test_another_sites_page_reaches_no_endpoint(client: httpx.Client, name: str) -> None:
    headers = {"origin": "https://evil.example", "content-type": "text/plain"}
    assert client.post(f"/gradio_api/call/{name}", content=b'{"data": []}', headers=headers).status_code == 403
    assert client.get("/config", headers=headers).status_code == 403


def test_no_header_is_forged_and_no_line_of_the_log(
    client: httpx.Client, address: str, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(log)
    hostile = "/monitoring%0d%0aset-cookie:%20x=1%0aINFO%20forged"
    answer = client.get(hostile, headers={"x-request-id": "mine", "x-forwarded-for": "1.2.3.4"})
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"] != "mine"
    with connect(address) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Bad: a\x00b\r\n\r\n")
        assert raw.recv(65536).split()[1] == b"400"
    client.get("/gradio_api/custom_component/a%0AINFO%20forged/client/component/b")
    client.post("/v1/chat/completions", json={"messages": [], "model": "a\nINFO forged"})
    client.post("/owner", json={"password": "a\nINFO forged"})
    client.post("/gradio_api/upload", files={"files": ("a\nINFO forged.txt", b"x")})
    assert log[before:]
    for line in log[before:]:
        assert "\n" not in line
        assert not line.startswith("INFO forged")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_password_and_the_token_are_in_no_answer_no_page_and_no_line_of_the_log(
    app: PublicApp, client: httpx.Client, log: list[str]
) -> None:
    """What other tests of this file hear, and the log of them all, is looked through as well."""
    for path, methods in app.routes():
        if "GET" in methods and "{" not in path and "startup-events" not in path:
            with client.stream("GET", path) as answer:
                assert answer.status_code < 500
    app.runtime.visitors._attempts.clear()  # those of other tests
    assert client.post("/owner", json={"password": PASSWORD[:-1]}).status_code == 403
    assert client.post("/owner", json={"password": PASSWORD}).status_code == 204
    said = [ask(client, event, [None] * count) for event, _, count in app.events()]
    said += [call(client, part, name, {"token": TOKEN, "name": "x"}).text for part, name in app.server_functions()]
    for text in (*said, *log):
        unsaid(text)
    assert client.get("/owner").json() == {"owner": True}


def test_the_search_for_secrets_finds_them() -> None:
    for secret in SECRETS:
        with pytest.raises(AssertionError):
            unsaid(json.dumps({"error": f"wrong: {secret}"}))


def test_programs_find_no_owners_function_in_any_api(client: httpx.Client) -> None:
    gradio = set(client.get("/gradio_api/info").json()["named_endpoints"])
    assert gradio == {f"/{name}" for name in ("chat", "generate", "score", "classify", "train_classifier", "models")}
    assert set(client.get("/v1/openapi.json").json()["paths"]) == {
        "/models",
        "/models/{name}",
        "/chat/completions",
        "/completions",
    }
    tools = {tool["name"] for tool in client.get("/gradio_api/mcp/schema").json()}
    assert tools == {"chat", "generate", "score", "classify"}
    for path in ("/v1/models/load", "/v1/models/smollm2-135m-instruct"):
        assert client.post(path, json={}).status_code in (404, 405)
        assert client.delete(path).status_code in (404, 405)

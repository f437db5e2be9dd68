"""What strangers may try on a public server, over real sockets: the app as `serve` starts it, without a model."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_demo import ui
from llama_demo.api import connections, gate
from llama_demo.runtime import Runtime
from llama_demo.serve import launch
from llama_demo.settings import read_settings
from tests.ports import free_port

PASSWORD = "correct horse battery"
TOKEN = "hf_0123456789abcdefghijklmnopqrstuvwx"
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
    handler = Lines()
    loggers = [logging.getLogger(name) for name in ("", "llama_demo", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    logging.getLogger("llama_demo").setLevel(logging.DEBUG)
    yield handler.lines
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, log: list[str]) -> Iterator[str]:
    port = free_port()
    environment = {"LLAMA_DEMO_OWNER_PASSWORD": PASSWORD, "HF_TOKEN": TOKEN}
    given = {"port": str(port), "public": "on", "cache_dir": str(tmp_path_factory.mktemp("attacks"))}
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setattr(connections, "HEAD_SECONDS", HEAD_SECONDS)
    with Runtime(read_settings(given, environment)) as runtime:
        page = ui.build(runtime)
        launch(page, runtime)
        yield f"http://127.0.0.1:{port}"
        page.close(verbose=False)
    patch.undo()


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client
        assert client.get("/health").status_code == 200


@pytest.fixture(scope="module")
def events(address: str) -> list[tuple[int, int]]:
    """Every event of the page, and how many values it takes."""
    config = httpx.get(f"{address}/config").json()
    return [(event["id"], len(event["inputs"])) for event in config["dependencies"] if event["backend_fn"]]


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(client: httpx.Client, event: int, data: list[Any]) -> str:
    """Everything that the page's protocol says to one event."""
    session = f"s{event}x{time.monotonic_ns()}"
    joined = client.post("/gradio_api/queue/join", json={"data": data, "fn_index": event, "session_hash": session})
    if joined.status_code != 200:
        assert joined.status_code < 500, joined.text
        return joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as heard:
        said = []
        for line in heard.iter_lines():
            said.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
        return "\n".join(said)


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/v1/chat/completions", "/owner", "/gradio_api/upload"])
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


@pytest.mark.parametrize("prefix", ["/gradio_api/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/"])
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
def test_no_file_of_the_machine_is_given_out(client: httpx.Client, prefix: str, path: str) -> None:
    answer = client.get(prefix + path)
    assert answer.status_code in (400, 403, 404)
    for secret in ("root:", PASSWORD, TOKEN, "import argparse"):
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


def test_an_uploaded_page_is_never_shown_as_one(client: httpx.Client) -> None:
    for name in ("evil.html", "evil.svg", "evil.xhtml"):
        page = b"<script>alert(1)</script>"
        (path,) = client.post("/gradio_api/upload", files={"files": (name, page, "text/html")}).json()
        shown = client.get(f"/gradio_api/file={path}")
        assert "attachment" in shown.headers.get("content-disposition", "") or shown.status_code in (403, 404)
        assert shown.headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_no_field_makes_the_server_fetch_an_address(
    client: httpx.Client, canary: str, events: list[tuple[int, int]]
) -> None:
    Canary.asked.clear()
    secret = f"{canary}/secret"
    files = [
        {"path": secret, "url": secret, "meta": {"_type": "gradio.FileData"}},
        {"path": secret, "meta": {"_type": "gradio.FileData"}},
        {"url": secret, "orig_name": "x", "meta": {"_type": "gradio.FileData"}},
        [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
        secret,
    ]
    for event, count in events:
        for file in files:
            said = ask(client, event, [file] * count)
            assert "internal secret" not in said
            assert "root:" not in said
            assert "Traceback" not in said
    for path in (f"/gradio_api/proxy={secret}", f"/gradio_api/file={secret}", f"/gradio_api/file=proxy={secret}"):
        assert "internal secret" not in client.get(path, follow_redirects=False).text
    image = [{"type": "image_url", "image_url": {"url": secret}}]
    refused = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": image}]})
    assert refused.status_code == 400
    assert Canary.asked == []


def test_what_gradio_offers_and_the_app_does_not_use_is_not_there(client: httpx.Client) -> None:
    for path in gate.UNUSED_PATHS:
        assert client.get(path).status_code == 404
        assert client.post(path).status_code == 404


@pytest.mark.parametrize("name", ["models", "classify", "picker"])
def test_another_sites_page_reaches_no_endpoint(client: httpx.Client, name: str) -> None:
    headers = {"origin": "https://evil.example", "content-type": "text/plain"}
    assert client.post(f"/gradio_api/call/{name}", content=b'{"data": []}', headers=headers).status_code == 403
    assert client.get("/config", headers=headers).status_code == 403


def test_no_header_is_forged_and_no_line_of_the_log(client: httpx.Client, address: str, log: list[str]) -> None:
    log.clear()
    hostile = "/monitoring%0d%0aset-cookie:%20x=1%0aINFO%20forged"
    answer = client.get(hostile, headers={"x-request-id": "mine", "x-forwarded-for": "1.2.3.4"})
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"] != "mine"
    with connect(address) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Bad: a\x00b\r\n\r\n")
        assert raw.recv(65536).split()[1] == b"400"
    assert log
    for line in log:
        assert "\n" not in line
        assert not line.startswith("INFO forged")


@pytest.mark.slow
def test_the_password_and_the_token_are_in_no_answer_no_page_and_no_line_of_the_log(
    client: httpx.Client, log: list[str], events: list[tuple[int, int]]
) -> None:
    paths = ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/v1/models", "/v1/openapi.json", "/owner")
    said = [client.get(path).text for path in (*paths, "/metrics", "/nowhere", "/gradio_api/startup-events")]
    said += [client.post("/owner", json={"password": PASSWORD[:-1]}).text]
    unlocked = client.post("/owner", json={"password": PASSWORD})
    said += [unlocked.text, str(unlocked.headers), client.get("/metrics").text]
    said += [ask(client, event, [None] * count) for event, count in events]
    for text in (*said, *log):
        assert PASSWORD not in text
        assert TOKEN not in text
    assert json.loads(client.get("/owner").text) == {"owner": True}


OWNERS = [
    ("act", {"do": do, "name": "tinyllama-1.1b-chat"})
    for do in ("load", "unload", "cancel", "download", "convert", "check_access", "pin", "unpin")
]
OWNERS += [("add_model", {"path": "/etc"}), ("sign_in", {"token": TOKEN}), ("push_model", {"repo": "a/b"})]


@pytest.mark.parametrize(("function", "asked"), OWNERS, ids=[str(asked.get("do", name)) for name, asked in OWNERS])
def test_an_owners_function_is_refused_to_a_visitor_who_calls_the_page_itself(
    client: httpx.Client, address: str, function: str, asked: dict[str, Any]
) -> None:
    components = httpx.get(f"{address}/config").json()["components"]
    refusals = [
        heard.json()["error"]
        for component in components
        if function in (component["props"].get("server_fns") or ())
        for heard in [
            client.post(
                "/gradio_api/component_server",
                json={"component_id": component["id"], "fn_name": function, "session_hash": "s", "data": asked},
                headers={"cookie": f"llama_demo_owner={'0' * 32}.{'0' * 64}"},
            )
        ]
    ]
    assert refusals
    assert all("Only the owner" in refusal for refusal in refusals)


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

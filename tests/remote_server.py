"""A server that speaks OpenAI's API over real HTTP, and misbehaves as a test tells it to. It has no model."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "far/away"
TOKEN = "token-that-nobody-may-see"
WORDS = ("The ", "boats ", "go ", "home.")


@dataclass
class Heard:
    """One request to an endpoint that writes."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    gone: threading.Event = field(default_factory=threading.Event)
    """Set once a write found that the client has closed the connection."""


class Exchange:
    """What a test's behaviour has of one request: how to answer it, well or badly."""

    def __init__(self, handler: BaseHTTPRequestHandler, heard: Heard, closing: threading.Event) -> None:
        self._handler, self.heard, self._closing = handler, heard, closing
        self._begun = False

    @property
    def is_chat(self) -> bool:
        return self.heard.path.endswith("/chat/completions")

    def piece(self, text: str, finish: str | None = None, logprobs: object = None) -> None:
        """One event of the stream."""
        part = {"delta": {"content": text}} if self.is_chat else {"text": text}
        self.event({"choices": [{"index": 0, **part, "finish_reason": finish, "logprobs": logprobs}]})

    def usage(self, prompt: int, new: int) -> None:
        self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": 0}})

    def event(self, data: object) -> None:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        head = {"id": "1", "object": kind, "created": 1, "model": MODEL}
        self.send(f"data: {json.dumps({**head, **data} if isinstance(data, dict) else data)}\n\n")

    def end(self) -> None:
        self.send("data: [DONE]\n\n")

    def send(self, text: str) -> None:
        """Raw text of the body, after the head of a stream."""
        if not self._begun:
            self._begun = True
            self._handler.send_response(200)
            self._handler.send_header("Content-Type", "text/event-stream")
            self._handler.send_header("Connection", "close")
            self._handler.end_headers()
        try:
            self._handler.wfile.write(text.encode())
            self._handler.wfile.flush()
        except OSError:
            self.heard.gone.set()
            raise

    def status(self, code: int, body: object = None, **headers: str) -> None:
        """A whole answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body or {"error": {"message": "no"}}).encode()
        self._handler.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Length", str(len(raw)))
        self._handler.end_headers()
        self._handler.wfile.write(raw)

    def hang(self) -> None:
        """Says nothing for as long as the server is there."""
        self._closing.wait()

    def reset(self) -> None:
        """Cuts the connection, as a machine does whose process has died."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True

    def until_gone(self) -> None:
        """Writes on until the client closes the connection."""
        while not self._closing.wait(0.01):
            self.piece("on ")


def well(exchange: Exchange) -> None:
    """A good answer: four pieces, the end, the counts."""
    for word in WORDS:
        exchange.piece(word)
    exchange.piece("", "stop")
    exchange.usage(7, 4)
    exchange.end()


Behaviour = Callable[[Exchange], None]


class RemoteStand:
    """`behaviours` are used one a request, the last one for all that follow."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = [well]
        self.models: object = [{"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 256}]
        """A number is the status of a server without such a list."""
        self.count: Callable[[dict[str, Any]], int] | None = None
        """What `/tokenize` counts; None for a server without it."""
        self.token = ""
        """What it wants to be shown."""
        self.heard: list[Heard] = []
        self.looks: list[Mapping[str, str]] = []
        """The headers of every request for the list of models."""
        self.is_frozen = False
        """Takes connections and answers nothing."""
        self._server: ThreadingHTTPServer | None = None
        self._closing = threading.Event()
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", self.port), _handler_of(self, self._closing))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more; what hangs is let go."""
        if self._server is not None:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def next(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)

    def answer(self, exchange: Exchange) -> None:
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        behaviour(exchange)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        """No goodbye before the end: the test has said how a connection closes."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is what many tests are about."""


def _plain(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _handler_of(stand: RemoteStand, closing: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            exchange = Exchange(self, Heard(self.path, _plain(self.headers), {}), closing)
            stand.looks.append(_plain(self.headers))
            if stand.is_frozen:
                closing.wait()
            elif stand.token and self.headers["Authorization"] != f"Bearer {stand.token}":
                exchange.status(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
            elif isinstance(stand.models, int):
                exchange.status(stand.models, {"detail": "no"})
            else:
                exchange.status(200, {"object": "list", "data": stand.models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard = Heard(self.path, _plain(self.headers), body)
            exchange = Exchange(self, heard, closing)
            if closing.is_set():
                exchange.reset()
                return
            if self.path == "/tokenize":
                exchange.status(*((200, {"count": stand.count(body)}) if stand.count else (404, {"detail": "no"})))
                return
            stand.heard.append(heard)
            stand.answer(exchange)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def stand() -> Iterator[RemoteStand]:
    made = RemoteStand()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def chat_logprobs(tokens: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Each with itself as its only alternative."""
    made = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in tokens]
    return {"content": [{**one, "top_logprobs": [one]} for one in made]}


def text_logprobs(tokens: Sequence[tuple[str, float | None]]) -> dict[str, Any]:
    return {
        "tokens": [text for text, _ in tokens],
        "token_logprobs": [value for _, value in tokens],
        "top_logprobs": [None if value is None else {text: value, "other": value - 1} for text, value in tokens],
        "text_offset": [0] * len(tokens),
    }

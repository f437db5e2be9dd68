"""What every request passes before anything reads it: whose page it comes from, how much it sends and how fast.

It tells browsers apart with a cookie, and gives every answer an id that the log has too. It knows no route.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import secrets
import socket
import time
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_demo.api.cookies import cookie
from llama_demo.api.guard import Guard
from llama_demo.api.uploads import Uploads
from llama_demo.api_errors import UnknownPath, UnreadableBody
from llama_demo.errors import LlamaDemoError
from llama_demo.observe import LOG, one_line
from llama_demo.visitor_errors import (
    BodyTooLarge,
    BodyTooSlow,
    CrossSite,
    ForeignHost,
    NoHost,
    NoRoomForUploads,
    TooManyRequests,
)
from llama_demo.visitors import VISITOR_COOKIE, Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

BODY_BYTES = 64_000_000
PUBLIC_BODY_BYTES = 8_000_000
"""Any request but an upload: the longest conversation takes a tenth of it."""
PUBLIC_UPLOAD_BYTES = 21_000_000
"""A private server takes files of any size."""
BODY_SECONDS = 30.0
BODY_BYTES_PER_SECOND = 20_000
"""A body may take so long, and beyond that must come at least so fast."""
COOKIE_SECONDS = 365 * 24 * 3600
API_PATH = "/v1/"
API_BYTES_PER_CHARACTER = 12
"""The longest way in which JSON writes one: as two escaped surrogates."""
API_SPARE_BYTES = 1_000_000
UPLOAD_PATH = "/gradio_api/upload"
PARTS_PATH = "/gradio_api/component_server"
"""It takes files, too, which no part of our page sends; what is cut off of them nobody would find again."""
UNUSED_PATHS = (
    "/gradio_api/proxy=",
    "/gradio_api/custom_component",
    "/gradio_api/deep_link",
    "/gradio_api/dev/",
    "/gradio_api/file/http:",
    "/gradio_api/file/https:",
    "/gradio_api/file=http:",
    "/gradio_api/file=https:",
    "/gradio_api/process_recording",
    "/gradio_api/profiling",
    "/gradio_api/run-history",
    "/gradio_api/vibe-",
    "/gradio_api/undo-vibe-edit",
    "/monitoring",
)
"""What Gradio offers and this app has no use for: some of it fetches addresses, or writes files, or prints what it is
sent, for whoever asks."""
GRADIO_PATH = "/gradio_api/"
QUERY_CHARACTERS = 1000
"""Of a request to Gradio, which remembers some of what stands there for ever."""
_FAILED, _REFUSED = 500, 400
"""Gradio's own routes use what they are sent before they have looked at it: what they say has failed was no request."""
_STATUS = {
    UnreadableBody: 400,
    NoHost: 400,
    ForeignHost: 403,
    CrossSite: 403,
    UnknownPath: 404,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    TooManyRequests: 429,
    NoRoomForUploads: 503,
}
_HOST = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?", re.ASCII)
_SERVER_HEADER = b"x-gradio-server"
"""By which a server of Gradio's own before this one, which we do not have, says what address it has."""
_OWN_NAMES = ("localhost", socket.gethostname().lower())


def gates(runtime: Runtime) -> list[Middleware]:
    """As `FastAPI` takes them."""
    return [Middleware(Gate, runtime), Middleware(Guard, runtime), Middleware(SmallPage)]


class Gate:
    """ASGI middleware around the page, the Gradio API and every other route."""

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        settings = runtime.settings
        self._any_name = settings.public or settings.share or bool(settings.trusted_proxies)
        self._names = {*_OWN_NAMES, settings.host.lower()}
        self.uploads = Uploads()
        self._frames = "https://huggingface.co https://*.hf.space" if settings.space else "'self'"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _SERVER_HEADER]
        _take_off_prefix(scope)
        passage = _Passage(self, Request(scope), receive, send)
        try:
            passage.begin()
            await self._app(scope, passage.receive, passage.send)
        except _Refused:
            await passage.refuse()
        except Exception as error:
            if not passage.is_gradios:
                raise
            await passage.refuse(UnreadableBody(), type(error).__name__)
        finally:
            passage.end()

    def check(self, request: Request) -> None:
        """Raises `ForeignHost`, `NoHost`, `CrossSite`, `UnknownPath`, `UnreadableBody`, `BodyTooLarge`."""
        host, passed_on = request.headers.get("host", ""), request.headers.get("x-forwarded-host", "")
        if not self._any_name and not self._is_own(host):
            raise ForeignHost(host)
        for name in (host, passed_on.partition(",")[0]):
            if name and not _HOST.fullmatch(name):
                raise NoHost(name)
        if _is_cross_site(request):
            raise CrossSite()
        if request.url.path.startswith(UNUSED_PATHS):
            raise UnknownPath(request.url.path)
        if request.url.path.startswith(GRADIO_PATH) and len(request.url.query) > QUERY_CHARACTERS:
            raise UnreadableBody()
        if request.url.path.startswith(PARTS_PATH) and "multipart" in request.headers.get("content-type", "").lower():
            raise UnreadableBody()
        length, limit = request.headers.get("content-length", ""), self.body_bytes(request)
        if limit is not None and length.isdecimal() and (len(length) > 18 or int(length) > limit):
            raise BodyTooLarge(limit)

    def body_bytes(self, request: Request) -> int | None:
        """The most that `request` may send; None for no bound."""
        public = self._runtime.settings.public
        if _is_upload(request):
            return PUBLIC_UPLOAD_BYTES if public else None
        if request.url.path.startswith(API_PATH):
            return API_BYTES_PER_CHARACTER * self._runtime.limits.message_characters + API_SPARE_BYTES
        return PUBLIC_BODY_BYTES if public else BODY_BYTES

    def dress(self, headers: MutableHeaders, request: Request, request_id: str) -> None:
        """What every answer says besides its own."""
        headers["x-request-id"] = request_id
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "same-origin"
        headers["content-security-policy"] = f"frame-ancestors {self._frames}; img-src 'self' data: blob:"
        if request.url.path == "/" and not self._runtime.visitors.knows(request):
            value, settings = self._runtime.visitors.new_cookie(), self._runtime.settings
            secure = request.url.scheme == "https"
            made = cookie(VISITOR_COOKIE, value, COOKIE_SECONDS, framed=settings.space, secure=secure)
            headers.append("set-cookie", made)

    def uploader(self, request: Request) -> Visitor | None:
        """Who uploads with `request` and has only a share of that; None where it is no upload, or nobody shares."""
        return self._runtime.visitors.of(request) if _is_upload(request) and self._runtime.settings.public else None

    def count(self, error: LlamaDemoError) -> None:
        self._runtime.metrics.error(error)

    def words(self, error: LlamaDemoError) -> str:
        return self._runtime.messages().error(error)

    def _is_own(self, host: str) -> bool:
        """Whether `host` is this machine, and no name that somebody else has pointed at it."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            return name in self._names or name.endswith((".localhost", ".local")) or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class SmallPage:
    """ASGI middleware: the page, which holds the settings of all its components, goes out in a sixth of its size.

    Gradio does that for its scripts and styles; a stream is never held back for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressed = GZipMiddleware(app, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"] == "/"
        await (self._compressed if is_page else self._app)(scope, receive, send)


class _Refused(Exception):
    """Ends whatever reads a body that goes no further."""


class _Passage:
    """One request on its way through."""

    def __init__(self, gate: Gate, request: Request, receive: Receive, send: Send) -> None:
        self._gate, self._request = gate, request
        self._receive, self._send = receive, send
        self._id = secrets.token_hex(6)
        self._error: LlamaDemoError | None = None
        self._started = False
        self._streams = False
        self._whole = False
        self._bytes = 0
        self._began = time.monotonic()
        self._uploader: Visitor | None = None
        self.is_gradios = request.url.path.startswith(GRADIO_PATH)

    def begin(self) -> None:
        try:
            self._gate.check(self._request)
            if (uploader := self._gate.uploader(self._request)) is not None:
                self._gate.uploads.begin(uploader)
                self._uploader = uploader
        except LlamaDemoError as error:
            self._stop(error)

    def end(self) -> None:
        if self._uploader is not None:
            self._gate.uploads.end(self._uploader, self._bytes)

    async def receive(self) -> Message:
        """The body's next piece, within its bounds; after the body, whatever comes, whenever it comes."""
        if self._whole:
            return await self._receive()
        allowed = BODY_SECONDS + self._bytes / BODY_BYTES_PER_SECOND
        try:
            message = await asyncio.wait_for(self._receive(), self._began + allowed - time.monotonic())
        except TimeoutError:
            self._stop(BodyTooSlow())
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        limit = self._gate.body_bytes(self._request)
        if limit is not None and self._bytes > limit:
            self._stop(BodyTooLarge(limit))
        return message

    async def send(self, message: Message) -> None:
        if self._error is not None and not self._started:
            raise _Refused
        if message["type"] == "http.response.start":
            self._started = True
            if self.is_gradios and message["status"] == _FAILED:
                message["status"] = _REFUSED
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            self._gate.dress(headers, self._request, self._id)
            self._streams = headers.get("content-type", "").startswith("text/event-stream")
            if self._bytes and not self._whole:
                headers["connection"] = "close"  # what is still to come of the body is not waited for
        elif not message.get("more_body", False):
            self._streams = False
        await self._send(message)

    async def refuse(self, error: LlamaDemoError | None = None, cause: str = "") -> None:
        """Says why, in the shapes that the page's and the OpenAI API's clients read, and ends the connection. A stream
        that has begun has said it itself, and ends as others do."""
        error = error or self._error
        assert error is not None
        if self._started:
            if self._streams:
                await self._send({"type": "http.response.body"})
            return
        status, words = _STATUS[type(error)], self._gate.words(error)
        self._gate.count(error)
        kind, path = type(error).__name__, one_line(self._request.url.path[:200])
        LOG.info("request=%s refused=%s%s path=%s", self._id, kind, cause and f" cause={cause}", path)
        body = {
            "detail": words,
            "error": {"message": words, "type": "invalid_request_error", "param": None, "code": kind},
        }
        headers = {"x-request-id": self._id, "connection": "close"}
        if isinstance(error, TooManyRequests):
            headers["retry-after"] = str(math.ceil(error.seconds))
        await JSONResponse(body, status, headers)(self._request.scope, self._receive, self._send)

    def _stop(self, error: LlamaDemoError) -> NoReturn:
        self._error = error
        raise _Refused


def _take_off_prefix(scope: Scope) -> None:
    """The prefix that Gradio was told the page is at goes from the path, however often it is there: a router that takes
    it off after the doors were guarded would open them under other names. The prefix alone is redirected by it."""
    prefix, path = scope.get("root_path", ""), scope["path"]
    if path == prefix:
        return
    while prefix and path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix)
    scope["path"], scope["root_path"] = path, ""


def _is_upload(request: Request) -> bool:
    return request.method == "POST" and request.url.path.rstrip("/") == UPLOAD_PATH


def _is_cross_site(request: Request) -> bool:
    """Whether another site's page asks: a link to the page is welcome, anything else is not."""
    site = request.headers.get("sec-fetch-site", "")
    if request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-mode") == "navigate":
        return False
    if site:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != request.headers.get("host", "").lower()

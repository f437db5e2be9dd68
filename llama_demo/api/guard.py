"""Lets in who has a key of the owner's file, or, where there is none but one of users, a name and its password."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_demo.api import failures
from llama_demo.api_errors import NotAuthorised
from llama_demo.visitors import CALLER, visitor_key

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_V1, _MCP = "/v1", "/gradio_api/mcp"


class Guard:
    """Answers 401 to everybody else, before anything of the request is read.

    Gradio asks for the password of the page and of its own API, but not where its MCP server is.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._keys, self._users = runtime.api_keys, runtime.users
        self._words = runtime.messages()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._guards(scope["path"]):
            caller = await self._caller(Headers(scope=scope).get("authorization", ""), scope["path"])
            if caller is None:
                await failures.response(NotAuthorised(), self._words)(scope, receive, send)
                return
            scope.setdefault("state", {})[CALLER] = caller
        await self._app(scope, receive, send)

    def _guards(self, path: str) -> bool:
        if path.startswith(_MCP):
            return self._users is not None
        return (path == _V1 or path.startswith(_V1 + "/")) and (self._keys is not None or self._users is not None)

    async def _caller(self, header: str, path: str) -> str | None:
        scheme, _, given = header.partition(" ")
        scheme, given = scheme.lower(), given.strip()
        if self._keys is not None and scheme == "bearer" and (known := self._keys.check(given)) is not None:
            return visitor_key("api key", known)
        if self._users is None or (self._keys is not None and not path.startswith(_MCP)):
            return None
        name, colon, password = _pair(scheme, given).partition(":")
        known_user = bool(colon) and await self._users.checked(name, password)
        return visitor_key("user", name) if known_user else None


def _pair(scheme: str, given: str) -> str:
    """NAME:PASSWORD as HTTP's basic scheme sends it, or as a program's API key."""
    if scheme != "basic":
        return given if scheme == "bearer" else ""
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""

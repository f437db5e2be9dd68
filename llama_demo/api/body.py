"""Bounds the body of a request before it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_demo.api import failures
from llama_demo.api_errors import BodyTooLarge

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_BYTES_PER_CHARACTER = 12
"""The longest way in which JSON writes one: as two escaped surrogates."""
_SPARE_BYTES = 1_000_000


def limit_bytes(runtime: Runtime) -> int:
    """What the longest message takes that this server reads, and all else."""
    return _BYTES_PER_CHARACTER * runtime.limits.message_characters + _SPARE_BYTES


class BodyLimit:
    """Answers 413 to a body that says it is too long, and stops reading one that turns out to be."""

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._limit_bytes = limit_bytes(runtime)
        self._words = runtime.messages()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if declared.isdigit() and int(declared) > self._limit_bytes:
            await failures.response(BodyTooLarge(self._limit_bytes), self._words)(scope, receive, send)
            return
        read_bytes = 0

        async def counted() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._limit_bytes:
                # Not an error of ours: what reads the body turns all others into its own.
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)

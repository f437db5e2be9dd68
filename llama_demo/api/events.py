"""Server-sent events that begin once there is something to say, and whose work ends with their reader."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

DONE = "[DONE]"
PATIENCE_SECONDS = 10.0
"""An error before this is an answer with its own status; after it, the stream has begun and tells the error itself."""
_KEEP_ALIVE = b": waiting\n\n"
"""A comment, which clients skip: it keeps proxies from giving up while a model loads."""


class EventStream(StreamingResponse):
    """Sends `chunks`; they are closed however it ends."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def stream(
    request: Request, chunks: AsyncGenerator[bytes, None], failed: Callable[[Exception], bytes]
) -> Response:
    """`chunks`, of which the empty ones only say that it is waited. Raises what comes before the first of the others,
    within `PATIENCE_SECONDS`; what comes later is told by the event that `failed` makes of it."""
    begun = time.monotonic()
    try:
        async for first in chunks:
            if first or time.monotonic() - begun > PATIENCE_SECONDS:
                return EventStream(_opened(first, chunks, failed))
            if await request.is_disconnected():
                break
    except BaseException:
        await chunks.aclose()
        raise
    await chunks.aclose()
    return gone()


def gone() -> Response:
    """For a reader who has left and will never read it."""
    return Response(status_code=499)


async def _opened(
    first: bytes, chunks: AsyncGenerator[bytes, None], failed: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes, None]:
    """Empty chunks become comments, now and then."""
    async with aclosing(chunks):
        yield first or _KEEP_ALIVE
        said = time.monotonic()
        try:
            async for chunk in chunks:
                if chunk or time.monotonic() - said > PATIENCE_SECONDS:
                    said = time.monotonic()
                    yield chunk or _KEEP_ALIVE
        except Exception as error:
            yield failed(error)

"""A time that is up while the server is busy costs nobody the request that had come by then."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from llama_demo.api.connections import timed

SECONDS = 0.5
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = len(REQUEST) // 2


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[socket.socket, Any]]:
    """A client's end, and the server's of the same connection."""
    config = uvicorn.Config(hello, lifespan="off", log_config=None, timeout_keep_alive=SECONDS)  # type: ignore[arg-type]
    config.load()
    kept: list[Any] = []

    def accept() -> Any:
        kept.append(timed(H11Protocol, SECONDS)(config=config, server_state=ServerState(), app_state={}))
        return kept[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(accept, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.setblocking(False)
        while not kept or kept[0]._timer is None:
            await asyncio.sleep(0)
        yield client, kept[0]
    server.close()


async def answer(client: socket.socket) -> bytes:
    """What comes next; nothing where the connection was closed."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), 10 * SECONDS)
    except ConnectionError:
        return b""


def just_before(timer: asyncio.TimerHandle, act: Callable[[], object]) -> None:
    """Has the loop run `act` and `timer` in one round, in this order: it is busy until both are due."""
    loop = asyncio.get_running_loop()
    loop.call_at(timer.when() - 0.2, time.sleep, 0.3)
    loop.call_at(timer.when() - 0.1, act)


def test_the_next_request_on_a_kept_connection_is_answered_though_its_time_is_just_up() -> None:
    async def run() -> bytes:
        async with connected() as (client, kept):
            client.sendall(REQUEST)
            assert await answer(client)
            just_before(kept.timeout_keep_alive_task, lambda: client.sendall(REQUEST))
            return await answer(client)

    assert asyncio.run(run()).endswith(b"hello")


def test_a_head_whose_last_part_comes_just_in_time_is_answered() -> None:
    async def run() -> bytes:
        async with connected() as (client, kept):
            client.sendall(REQUEST[:HALF])
            just_before(kept._timer, lambda: client.sendall(REQUEST[HALF:]))
            return await answer(client)

    assert asyncio.run(run()).endswith(b"hello")


@pytest.mark.parametrize("sent", [b"", REQUEST[:HALF], REQUEST])
def test_a_connection_that_asks_nothing_more_is_closed(sent: bytes) -> None:
    async def run() -> bytes:
        async with connected() as (client, _):
            client.sendall(sent)
            if sent == REQUEST:
                assert await answer(client)
            return await answer(client)

    assert asyncio.run(run()) == b""

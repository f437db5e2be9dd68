"""Who asks nothing or takes nothing is cut off, and a time that is up while the server is busy costs nobody the request
that had come by then."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llama_demo.api.connections import ANSWERS_OF_PAGE, tell_to_the_end, timed
from tests.waiting import PATIENCE_SECONDS

SECONDS = 0.5
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = len(REQUEST) // 2
PIECE = b"x" * 65536
SMALL_BYTES = 16384
"""What a socket holds back for a reader who is behind, so that little is on its way."""
PROTOCOLS = [H11Protocol, HttpToolsProtocol]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Endless:
    """Answers for as long as somebody reads."""

    def __init__(self, piece: bytes = PIECE) -> None:
        self._piece = piece
        self.sent_bytes = 0
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": self._piece, "more_body": True})
            self.sent_bytes += len(self._piece)
            await asyncio.sleep(0)
        assert gone.result()["type"] == "http.disconnect"
        self.ended.set()


class Held:
    """An answer that has begun, and ends when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"so far", "more_body": True})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"the end"})


@asynccontextmanager
async def connected(app: Any = hello, protocol: Any = H11Protocol) -> AsyncIterator[tuple[socket.socket, Any]]:
    """A client's end, and the server's of the same connection."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_keep_alive=SECONDS)  # type: ignore[arg-type]
    config.load()
    kept: list[Any] = []

    def accept() -> Any:
        kept.append(timed(protocol, SECONDS, SECONDS)(config=config, server_state=ServerState(), app_state={}))
        return kept[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(accept, "127.0.0.1", 0)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        client.connect(server.sockets[0].getsockname())
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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_takes_nothing_of_an_answer_ends_the_work_on_it(protocol: Any) -> None:
    async def run() -> None:
        endless = Endless()
        async with connected(endless, protocol) as (client, kept):
            client.sendall(REQUEST)
            await asyncio.wait_for(endless.ended.wait(), 20 * SECONDS)
            assert endless.sent_bytes < 100 * len(PIECE)
            assert kept.transport.is_closing()

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_takes_an_answer_slowly_has_it(protocol: Any) -> None:
    async def run() -> None:
        endless, loop = Endless(32 * PIECE), asyncio.get_running_loop()
        async with connected(endless, protocol) as (client, kept):
            client.sendall(REQUEST)
            read_until = loop.time() + 4 * SECONDS
            while loop.time() < read_until:
                assert await loop.sock_recv(client, SMALL_BYTES)
                await asyncio.sleep(SECONDS / 20)
            assert not kept.transport.is_closing()
        await asyncio.wait_for(endless.ended.wait(), 20 * SECONDS)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_left_of_an_answer_that_nobody_takes_keeps_no_connection(protocol: Any) -> None:
    """The app has done with it: it lies before the socket, shorter than what writing usually pauses at."""

    async def once(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(len(PIECE) + SMALL_BYTES).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PIECE + PIECE[:SMALL_BYTES]})

    async def run() -> None:
        async with connected(once, protocol) as (client, kept):
            client.sendall(REQUEST)
            async with asyncio.timeout(20 * SECONDS):
                while kept in kept.connections:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


@asynccontextmanager
async def told(path: str, seconds: float) -> AsyncIterator[tuple[asyncio.Task[None], Held, socket.socket]]:
    """Waits for what is on its way from `path`, whose answer is held."""
    held = Held()
    async with connected(held) as (client, connection):
        client.sendall(REQUEST.replace(b"/", path.encode(), 1))
        assert await answer(client)
        server = SimpleNamespace(server_state=SimpleNamespace(connections=connection.connections))
        yield asyncio.create_task(asyncio.to_thread(tell_to_the_end, server, seconds)), held, client
        held.may_end.set()


@pytest.mark.parametrize("path", ANSWERS_OF_PAGE)
def test_an_answer_of_the_page_is_waited_for_until_it_was_sent_whole(path: str) -> None:
    async def run() -> bytes:
        async with told(path, PATIENCE_SECONDS) as (telling, held, client):
            assert not (await asyncio.wait([telling], timeout=2 * SECONDS))[0]
            held.may_end.set()
            await telling
            return await answer(client)

    assert b"the end" in asyncio.run(run())


@pytest.mark.parametrize(("path", "seconds"), [(ANSWERS_OF_PAGE[0], SECONDS), ("/v1/models", PATIENCE_SECONDS)])
def test_it_is_waited_for_no_longer_than_its_time_and_others_not_at_all(path: str, seconds: float) -> None:
    async def run() -> None:
        async with told(path, seconds) as (telling, held, _):
            await asyncio.wait_for(telling, PATIENCE_SECONDS / 2)
            assert not held.may_end.is_set()

    asyncio.run(run())

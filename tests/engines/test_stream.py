"""A request's stream: from the engine's thread to one reader, blocking or async."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llama_demo.engines.stream import TokenStream
from llama_demo.errors import EngineCrashed
from llama_demo.values import Token

ONE, TWO, THREE = (Token(number, -0.5) for number in (1, 2, 3))


def make() -> tuple[TokenStream, list[str]]:
    calls: list[str] = []
    return TokenStream(lambda: calls.append("cancel")), calls


def test_tokens_come_in_order_and_the_end_ends_the_iteration() -> None:
    stream, _ = make()
    stream.put([ONE, TWO])
    stream.put([THREE])
    stream.finish("stop")
    assert list(stream) == [ONE, TWO, THREE]
    assert (stream.finish_reason, stream.steps, stream.drained) == ("stop", 3, True)


def test_a_blocked_reader_is_woken_by_each_token_from_another_thread() -> None:
    stream, _ = make()
    read: list[Token] = []
    got = threading.Semaphore(0)

    def reader() -> None:
        for token in stream:
            read.append(token)
            got.release()

    thread = threading.Thread(target=reader)
    thread.start()
    for count, token in enumerate([ONE, TWO, THREE], start=1):
        stream.put([token])
        assert got.acquire(timeout=10)
        assert len(read) == count
    stream.finish("length")
    thread.join(10)
    assert not thread.is_alive()


def test_an_error_is_raised_in_the_reader_after_the_tokens_before_it() -> None:
    stream, _ = make()
    stream.put([ONE])
    stream.fail(EngineCrashed("tiny"))
    tokens = iter(stream)
    assert next(tokens) == ONE
    with pytest.raises(EngineCrashed):
        next(tokens)


def test_the_first_end_counts() -> None:
    stream, _ = make()
    stream.finish("cancelled")
    stream.fail(EngineCrashed("tiny"))
    stream.finish("stop")
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"


def test_cancel_asks_the_engine_and_is_idle_after_the_end() -> None:
    stream, calls = make()
    stream.cancel()
    assert calls == ["cancel"]
    stream.finish("cancelled")
    stream.cancel()
    assert calls == ["cancel"]


def test_it_is_drained_only_when_ended_and_read() -> None:
    stream, _ = make()
    stream.put([ONE])
    stream.finish("stop")
    assert stream.ended
    assert not stream.drained
    list(stream)
    assert stream.drained


def test_read_gives_all_there_is_then_waits_for_more() -> None:
    async def scenario() -> None:
        stream, _ = make()
        stream.put([ONE, TWO])
        assert await stream.read(10) == [ONE, TWO]
        waiting = asyncio.create_task(stream.read(10))
        await asyncio.sleep(0)
        threading.Thread(target=stream.put, args=([THREE],)).start()
        assert await waiting == [THREE]

    asyncio.run(scenario())


def test_read_is_empty_when_the_time_is_up_and_when_drained() -> None:
    async def scenario() -> None:
        stream, _ = make()
        assert await stream.read(0.001) == []
        assert not stream.drained
        stream.finish("stop")
        assert await stream.read(10) == []
        assert stream.drained

    asyncio.run(scenario())


def test_read_is_woken_by_the_end_and_by_an_error() -> None:
    async def scenario() -> None:
        ended, _ = make()
        waiting = asyncio.create_task(ended.read(10))
        await asyncio.sleep(0)
        threading.Thread(target=ended.finish, args=("stop",)).start()
        assert await waiting == []
        failed, _ = make()
        waiting = asyncio.create_task(failed.read(10))
        await asyncio.sleep(0)
        threading.Thread(target=failed.fail, args=(EngineCrashed("tiny"),)).start()
        with pytest.raises(EngineCrashed):
            await waiting

    asyncio.run(scenario())


def test_a_readers_loop_that_has_closed_does_not_disturb_the_engine() -> None:
    stream, _ = make()

    async def leave() -> None:
        task = asyncio.create_task(stream.read(60))
        await asyncio.sleep(0)
        stream._wake, kept = None, stream._wake
        task.cancel()
        stream._wake = kept

    asyncio.run(leave())
    stream.put([ONE])
    assert stream.steps == 1

"""One visitor's single request beside another who holds many: how many of the engine's steps until its first token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_demo import leasing
from llama_demo.budgets import Allowance
from llama_demo.errors import Closing
from llama_demo.leasing import Stopper
from llama_demo.values import ChatUpdate, Sampling, Token
from llama_demo.visitors import Role, Visitor
from tests.scripted import Request, ScriptedEngine, World

HOLDER, OTHER = (Visitor(key, Role.ANONYMOUS) for key in ("holder", "other"))
HELD = 32
HELD_TOKENS = 10
OTHERS_TOKENS = 3
NEVER_SECONDS = 1000.0
A_TOKEN = Token(100, -1.0)
PUBLIC = Allowance(concurrent=4, waiting=32, requests_per_minute=1_000_000, tokens_per_minute=1_000_000)


class SteppedEngine(ScriptedEngine):
    """Makes one token of every request in flight when it is told to step, as a batch does."""

    def step(self) -> None:
        for request in self.in_flight():
            request.stream.put([A_TOKEN])
            if request.stream.steps == request.sampling.max_new_tokens:
                request.stream.finish("length")

    def in_flight(self) -> list[Request]:
        return [request for request in self.requests if not request.stream.ended]


@pytest.fixture
def make(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Worlds in which nobody looks whether the turn has come: it is told."""
    monkeypatch.setattr(leasing, "UPDATE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(leasing, "SLOWEST_PLACE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(leasing, "SLOWEST_UPDATE_SECONDS", 0.001)
    made: list[World] = []

    def world(**options: Any) -> World:
        made.append(World(tiny_folder, SteppedEngine(), queue=HELD + 1, **options))
        return made[-1]

    yield world
    for one in made:
        one.registry.close()


def steps_until_answered(world: World, *, held: int, head_start: int) -> int:
    """Of the engine, from the other visitor's request to its first token. The holder's requests have had `head_start`
    steps by then."""

    async def run() -> int:
        tasks = [ask(world, Stopper(HOLDER), HELD_TOKENS) for _ in range(held)]
        for _ in range(head_start):
            await settled(world, held)
            world.engine.step()
        tasks.append(ask(world, Stopper(OTHER), OTHERS_TOKENS))
        steps = 0
        while not any(request.stream.steps for request in world.engine.requests if is_others(request.sampling)):
            await settled(world, held + 1)
            world.engine.step()
            steps += 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return steps

    return asyncio.run(run())


def is_others(sampling: Sampling) -> bool:
    return sampling.max_new_tokens == OTHERS_TOKENS


def ask(world: World, stopper: Stopper, tokens: int) -> asyncio.Task[None]:
    async def read(updates: AsyncGenerator[ChatUpdate, None]) -> None:
        async for _ in updates:
            continue

    sampling = Sampling(max_new_tokens=tokens, temperature=0.0)
    return asyncio.create_task(read(world.chat(sampling=sampling, stopper=stopper)))


async def settled(world: World, asked: int) -> None:
    """Of so many requests everyone is in the line, or at the engine if its turn has come, or has ended."""
    engine, admission = world.engine, world.admission
    async with asyncio.timeout(20):
        while len(engine.in_flight()) != admission.active or len(engine.requests) + admission.waiting != asked:
            await asyncio.sleep(0.001)


def test_alone_the_first_step_answers(make: Callable[..., World]) -> None:
    assert steps_until_answered(make(), held=0, head_start=0) == 1


def test_where_there_is_room_the_first_step_answers_beside_thirty_two_as_well(make: Callable[..., World]) -> None:
    assert steps_until_answered(make(concurrent=64), held=HELD, head_start=3) == 1


def test_on_a_public_server_one_visitor_leaves_room_for_others(make: Callable[..., World]) -> None:
    assert steps_until_answered(make(concurrent=8, allowance=PUBLIC), held=HELD, head_start=3) == 1


def test_where_every_place_is_taken_the_first_that_is_free_is_the_others(make: Callable[..., World]) -> None:
    """In the order they came, it would be after all that wait: eight times as late."""
    assert steps_until_answered(make(concurrent=4), held=HELD, head_start=3) == HELD_TOKENS - 3 + 1


@pytest.mark.parametrize("end", [Stopper.stop, lambda stopper: stopper.end(Closing())], ids=["stopped", "ended"])
def test_who_waits_and_is_stopped_hears_it_at_once(make: Callable[..., World], end: Callable[[Stopper], None]) -> None:
    world, stopper = make(concurrent=1), Stopper(OTHER)

    async def run() -> None:
        answered, waiting = ask(world, Stopper(HOLDER), HELD_TOKENS), ask(world, stopper, OTHERS_TOKENS)
        await settled(world, 2)
        assert world.admission.waiting == 1
        end(stopper)
        async with asyncio.timeout(20):
            await asyncio.wait([waiting])
        assert world.admission.waiting == 0
        assert stopper.error is waiting.exception()
        answered.cancel()
        await asyncio.gather(answered, return_exceptions=True)

    asyncio.run(run())

"""A conversation of about 1,000 tokens and its next turn: what the first token costs cold, and with the turns before it
already in the engine's cache. Works on whatever streams replies."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from llama_demo.bench import Measured, timed
from llama_demo.bench_client import Ask, ReplyClient

TOKENS = 1000
TIMEOUT_SECONDS = 120.0
_NEW_TOKENS = 16


@dataclass(frozen=True, slots=True)
class NextTurn:
    """Seconds to the first token of the turn after a long conversation, medians of `repeats`."""

    cold_seconds: float
    warm_seconds: float
    repeats: int

    @property
    def ratio(self) -> float:
        return self.cold_seconds / self.warm_seconds


async def next_turn(client: ReplyClient, count: Callable[[str], int], repeats: int, first: int) -> NextTurn:
    """Measures both on conversations that nobody has had before, numbered from `first`. Raises `RuntimeError` where
    a request fails."""
    colds, warms = [], []
    for turn in range(repeats):
        colds.append((await _ask(client, _last(first + 2 * turn, "It is told in the harbour.", count))).first_seconds)
        number = first + 2 * turn + 1
        reply = (await _ask(client, _opening(number, count))).text
        warms.append((await _ask(client, _last(number, reply, count))).first_seconds)
    return NextTurn(statistics.median(colds), statistics.median(warms), repeats)


def _opening(number: int, count: Callable[[str], int]) -> Ask:
    """The first turn. Its very first words are its own, so that no other conversation's cache helps."""
    text, line = f"Chronicle {number}: listen to my notes, then tell me more.", 0
    while count(text) < TOKENS - 60:
        line += 1
        text += f" On day {line * (number + 3)} the ferry carried {line * 7 + number} crates past mill {line}."
    return Ask(text, _NEW_TOKENS)


def _last(number: int, reply: str, count: Callable[[str], int]) -> Ask:
    before = [{"role": "user", "content": _opening(number, count).message}, {"role": "assistant", "content": reply}]
    return Ask("And what did the ferry carry on the day after that?", _NEW_TOKENS, tuple(before))


async def _ask(client: ReplyClient, ask: Ask) -> Measured:
    measured = await timed(client, ask, 0, TIMEOUT_SECONDS)
    if measured.error:
        raise RuntimeError(measured.error)
    return measured

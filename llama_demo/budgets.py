"""What each visitor of a public server has used lately, and whether there is more to be had. Arithmetic on a clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from llama_demo.visitor_errors import TooManyRequests
from llama_demo.visitors import Visitor

MINUTE = 60.0
ADDRESS_SHARE = 8
"""Visitors behind one address, a school's say, have this many visitors' share together: new cookies give no more."""
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """One visitor's share of a public server; a visitor of more weight has as many times more."""

    concurrent: int
    waiting: int
    requests_per_minute: int
    tokens_per_minute: int
    request_seconds: float = 600.0


@dataclass(slots=True)
class _Use:
    """What was used of a minute's allowance; it comes back evenly."""

    requests: float
    tokens: float
    time: float


class Budgets:
    """Not thread-safe: its owner holds a lock. `now` is in seconds, of a clock that never goes back."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._used: OrderedDict[str, _Use] = OrderedDict()

    def take(self, visitor: Visitor, now: float) -> None:
        """Counts one request. Raises `TooManyRequests`, and counts nothing then."""
        uses = [(share, self._use(key, share, now)) for key, share in _shares(visitor)]
        waits = [self._wait_seconds(use, share) for share, use in uses]
        if max(waits) > 0:
            raise TooManyRequests(max(waits))
        for _, use in uses:
            use.requests += 1

    def spend(self, visitor: Visitor, tokens: int, now: float) -> None:
        """Counts tokens that were read or written for `visitor`."""
        for key, share in _shares(visitor):
            self._use(key, share, now).tokens += tokens

    def _use(self, key: str, share: int, now: float) -> _Use:
        use = self._used.setdefault(key, _Use(0.0, 0.0, now))
        self._used.move_to_end(key)
        if len(self._used) > _REMEMBERED:
            self._used.popitem(last=False)
        back = (now - use.time) * share / MINUTE
        use.requests = max(0.0, use.requests - back * self._allowance.requests_per_minute)
        use.tokens = max(0.0, use.tokens - back * self._allowance.tokens_per_minute)
        use.time = now
        return use

    def _wait_seconds(self, use: _Use, share: int) -> float:
        """Until one request, and any token, is within the allowance."""
        requests, tokens = self._allowance.requests_per_minute * share, self._allowance.tokens_per_minute * share
        return max((use.requests + 1 - requests) * MINUTE / requests, (use.tokens - tokens) * MINUTE / tokens)


def _shares(visitor: Visitor) -> Iterator[tuple[str, int]]:
    """What a request counts against, and how many visitors' allowances that has."""
    yield visitor.key, visitor.weight
    if visitor.address not in ("", visitor.key):
        yield visitor.address, ADDRESS_SHARE

"""How much is asked of each system: the crowds, and how often each visitor of a crowd asks."""

from __future__ import annotations

CROWDS = (1, 4, 16, 64)
NEW_TOKENS = 64
_ROUNDS = {1: 10, 4: 4, 16: 3}
_ONE_AT_A_TIME_ROUNDS = {1: 2}


def rounds_for(visitors: int, *, one_at_a_time: bool = False) -> int:
    """Small crowds ask more often, so that their figures stand on enough requests. Systems that serve one at a time
    are asked less: their figures do not change, only the wait."""
    return _ONE_AT_A_TIME_ROUNDS.get(visitors, 1) if one_at_a_time else _ROUNDS.get(visitors, 2)

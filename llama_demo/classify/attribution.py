"""Which words of a text moved a classifier's decision: each is left out in turn, and what is left is read again.

Where a text has many words, several neighbours are left out together. It knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PARTS = 63
"""With the whole text one batch."""
FEWEST_PARTS = 8
MOST_TOKENS = 32_000
"""Of a text's variants together, about: a text that fills the context is told by fewer, longer parts."""
_SCRIPTS_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SCRIPTS_WITHOUT_SPACES}]|[^\s{_SCRIPTS_WITHOUT_SPACES}]+")
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Parts:
    """`spans` are the first character of each part and the one after its last; each has `words` words, the last one
    perhaps fewer. `variants` are the text without each of them. None of either where the text is one word."""

    spans: tuple[tuple[int, int], ...]
    words: int
    variants: tuple[str, ...]


def parts_of(text: str, tokens: int) -> Parts:
    """`text`, which has `tokens` tokens, in parts to be left out. A Chinese or Japanese character is a word."""
    words = [match.span() for match in _WORD.finditer(text)]
    most = min(MOST_PARTS, max(FEWEST_PARTS, MOST_TOKENS // max(tokens, 1)))
    each = max(1, -(-len(words) // most))
    groups = [words[start : start + each] for start in range(0, len(words), each)]
    spans = tuple((group[0][0], group[-1][1]) for group in groups)
    if len(spans) < 2:
        return Parts((), each, ())
    variants = [text[:start] + text[after:] for (start, _), (after, _) in pairwise(spans)]
    return Parts(spans, each, (*variants, text[: spans[-1][0]].rstrip()))


def effects(problem_type: str, whole: Sequence[float], without: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much lower each label's log-odds are without each part (the value itself in a regression): above 0 where the
    part speaks for the label. `whole` [labels] and `without` [parts, labels] are scores; the same shape as `without`.
    """
    before = np.asarray(whole, np.float64)
    if problem_type == "regression":
        return before - without
    return _log_odds(before) - _log_odds(without)


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(shares, _SMALLEST, 1.0 - _SMALLEST)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))

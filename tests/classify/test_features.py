from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_demo.classify.features import CHUNK_TEXTS, Features
from llama_demo.loading import LoadedModel

IDS = [tuple(range(start, start + 3 + start % 5)) for start in range(10, 10 + 2 * CHUNK_TEXTS)]


class Counting:
    """An engine that remembers what it was asked."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.asked: list[tuple[int, ...]] = []

    def embed(self, batch: Sequence[Sequence[int]]) -> Any:
        self.asked += [tuple(ids) for ids in batch]
        return self.engine.embed(batch)


def go_on(_: int, __: int) -> bool:
    return True


def test_a_text_is_read_once_however_often_it_is_asked_for(tiny_loaded: LoadedModel) -> None:
    engine: Any = Counting(tiny_loaded.engine)
    features = Features(10**7)
    first = features.embed(engine, "tiny", [*IDS, *IDS[:5]], go_on)
    again = features.embed(engine, "tiny", IDS[::-1], go_on)
    assert sorted(engine.asked) == sorted(IDS)
    assert first is not None
    assert again is not None
    assert np.array_equal(first[: len(IDS)], again[::-1])
    assert np.array_equal(first[len(IDS) :], first[:5])
    assert np.abs(first[7] - tiny_loaded.engine.embed([IDS[7]])[0]).max() < 1e-4


def test_another_backbone_has_its_own_features(tiny_loaded: LoadedModel) -> None:
    engine: Any = Counting(tiny_loaded.engine)
    features = Features(10**7)
    features.embed(engine, "tiny", IDS[:1], go_on)
    features.embed(engine, "other", IDS[:1], go_on)
    assert len(engine.asked) == 2


def test_no_more_is_kept_than_was_allowed_and_the_oldest_goes(tiny_loaded: LoadedModel) -> None:
    engine: Any = Counting(tiny_loaded.engine)
    features = Features(20 * 128 * 4)
    features.embed(engine, "tiny", IDS[:20], go_on)
    features.embed(engine, "tiny", IDS[:1], go_on)
    features.embed(engine, "tiny", IDS[20:25], go_on)
    assert features.bytes <= 20 * 128 * 4
    engine.asked.clear()
    features.embed(engine, "tiny", IDS[:1], go_on)
    assert not engine.asked


def test_progress_is_told_and_a_cancel_is_heard(tiny_loaded: LoadedModel) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> bool:
        told.append((done, total))
        return True

    features = Features(10**7)
    features.embed(tiny_loaded.engine, "tiny", IDS, tell)
    assert told == [(0, len(IDS)), (CHUNK_TEXTS, len(IDS)), (len(IDS), len(IDS))]
    engine: Any = Counting(tiny_loaded.engine)
    assert Features(10**7).embed(engine, "tiny", IDS, lambda done, _: done == 0) is None
    assert len(engine.asked) == CHUNK_TEXTS

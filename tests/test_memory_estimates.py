"""What a model is counted for beside what the processes then use: in their steady state, at their peak, and once it is
unloaded, for every way of loading, as `python -m benchmarks.memory` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.memory import WAYS, WITHIN, Way, measure

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, embedded_gguf: Path) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_model_takes_what_it_is_counted_for_and_gives_it_back(way: Way, folder: Path) -> None:
    figures = measure(way, folder)
    assert figures.keys() == {"steady", "peak", "freed"}
    assert {name: figure.ratio for name, figure in figures.items()} == pytest.approx(
        dict.fromkeys(figures, 1.0), abs=WITHIN
    ), figures

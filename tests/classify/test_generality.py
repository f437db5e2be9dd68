"""The embedded model on small labelled sets of several kinds and 2 to 10 labels; no figure is published on any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.prompts import LabelSet, by_head, by_labels, label_sets
from llama_demo.classify.wrapping import Wrapping
from llama_demo.classify.zero_shot import PROMPTS, choose_prompt
from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings

pytestmark = pytest.mark.slow
SETS = tuple(label_sets())
WRAPPINGS = [Wrapping(prompt) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def loaded(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    cache = str(tmp_path_factory.mktemp("cache"))
    with (
        Runtime(read_settings({"cache_dir": cache, "context_tokens": "512"}, {})) as runtime,
        runtime.registry.lease(runtime.reads_with(runtime.default_model)) as model,
    ):
        yield model


def majority(given: LabelSet) -> float:
    return float(np.bincount(given.classes).max() / len(given.classes))


def test_labels_alone_beat_naming_the_commonest_where_there_are_several(loaded: LoadedModel) -> None:
    found = {
        given.name: by_labels(loaded, choose_prompt(loaded, WRAPPINGS, given.labels), given) - majority(given)
        for given in SETS
    }
    assert min(found[given.name] for given in SETS if len(given.labels) > 2) > 0.15, found
    assert np.mean(list(found.values())) > 0.3, found


def test_a_head_beats_naming_the_commonest_on_every_set(loaded: LoadedModel) -> None:
    found = {
        given.name: by_head(loaded, choose_prompt(loaded, WRAPPINGS, given.labels), given) - majority(given)
        for given in SETS
    }
    assert min(found.values()) > 0.2, found
    assert np.mean(list(found.values())) > 0.4, found

"""Whether the prompt that is chosen for labels suits them: `python -m benchmarks.prompts`.

On small labelled sets of our own writing (`label_sets.toml`), of other kinds than the sets that figures are published
on: the accuracy of each prompt that there is to choose from, by labels alone and by a head that is cross-validated, and
a mark at the one that is chosen.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.classification import features, go_on
from llama_demo.classify import training, zero_shot
from llama_demo.classify.labels import labels_from
from llama_demo.classify.wrapping import Wrapping
from llama_demo.classify.zero_shot import PROMPTS, ZeroShot, choose_prompt
from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings

SETS = Path(__file__).parent / "label_sets.toml"


@dataclass(frozen=True, slots=True)
class LabelSet:
    """`classes` [texts] are places in `labels`."""

    name: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    classes: tuple[int, ...]


def label_sets() -> Iterator[LabelSet]:
    for name, examples in tomllib.loads(SETS.read_text(encoding="utf-8")).items():
        labels = tuple(sorted(examples))
        rows = [(text, place) for place, label in enumerate(labels) for text in examples[label]]
        yield LabelSet(name, labels, tuple(text for text, _ in rows), tuple(place for _, place in rows))


def by_labels(loaded: LoadedModel, wrapping: Wrapping, given: LabelSet) -> float:
    found = zero_shot.score(loaded, ZeroShot(labels_from(given.labels)), wrapping, given.texts, go_on)
    assert found is not None
    return float((found.logits.argmax(axis=1) == given.classes).mean())


def by_head(loaded: LoadedModel, wrapping: Wrapping, given: LabelSet) -> float:
    classes = np.array(given.classes, dtype=np.intp)
    fitted = training.train(features(loaded, wrapping, given.texts), classes, go_on)
    assert fitted is not None
    return float((fitted.probabilities.argmax(axis=1) == classes[fitted.judged]).mean())


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as cache,
        Runtime(read_settings({"cache_dir": cache}, {})) as runtime,
        runtime.registry.lease(runtime.reads_with(runtime.default_model)) as loaded,
    ):
        for given in label_sets():
            wrappings = [Wrapping(prompt) for prompt in PROMPTS]
            chosen = choose_prompt(loaded, wrappings, given.labels)
            majority = np.bincount(given.classes).max() / len(given.classes)
            print(f"{given.name}: {len(given.texts)} texts, {len(given.labels)} labels, majority {majority:.2f}")
            for wrapping in wrappings:
                mark = "*" if wrapping == chosen else " "
                few, many = by_labels(loaded, wrapping, given), by_head(loaded, wrapping, given)
                print(f"{mark} {wrapping.prompt!r:<34} labels alone {few:.2f}   head {many:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

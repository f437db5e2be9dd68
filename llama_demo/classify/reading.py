"""How a loaded model reads texts to classify them: by a trained head, or by the likelihood of labels. It blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_demo.classify import training, zero_shot
from llama_demo.classify.features import Features, Told
from llama_demo.classify.head import Head
from llama_demo.classify.wrapping import Wrapping
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.classify_errors import NoNumbers
from llama_demo.errors import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_demo.loading import LoadedModel

PROBE_TEXT = "The harbour lies below the old town."
"""What tells a backbone from another: the features of this text, saved with every head."""

MOST_KEPT = 100

ChosenPrompts = dict[tuple[str, ZeroShot], Wrapping]
"""By the model's name, and what it was asked."""
Scored = tuple["NDArray[np.float64]", Sequence[int]]


@dataclass(frozen=True, slots=True)
class Reader:
    """`read` gives the scores [texts, labels], as `problem_type` has them, and what was cut of each text's end; None
    where it was told to end. `classifier` is a head's name, empty for zero-shot; `prompt` is what a text is read in."""

    classifier: str
    model: str
    prompt: str
    labels: tuple[str, ...]
    problem_type: str
    read: Callable[[Sequence[str], Told], Scored | None]


def by_head(loaded: LoadedModel, head: Head, features: Features) -> Reader:
    """Raises `WrongBackbone`, `Unsupported`, `NoNumbers`."""
    head.check_backbone(loaded.entry.name, probe(loaded, features))
    wrapping = Wrapping(head.prompt)

    def read(texts: Sequence[str], told: Told) -> Scored | None:
        found = embed(loaded, features, wrapping, texts, told)
        return None if found is None else (head.scores(found[0]), found[1])

    return Reader(head.name, loaded.entry.name, head.prompt, head.labels, head.problem_type, read)


def by_labels(loaded: LoadedModel, asked: ZeroShot, kept: ChosenPrompts) -> Reader:
    """What was chosen for the same labels before is found in `kept`.

    Raises `Unsupported`; reading, `PromptTooLong`, `NoNumbers`.
    """
    if not loaded.engine.abilities.score:
        raise Unsupported("zero-shot classification", loaded.entry.name)
    names = tuple(label.name for label in asked.labels)
    key = (loaded.entry.name, asked)
    wrapping = kept.get(key) or zero_shot.choose_prompt(loaded, asked.wrappings(), names)
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[key] = wrapping

    def read(texts: Sequence[str], told: Told) -> Scored | None:
        found = zero_shot.score(loaded, asked, wrapping, texts, told)
        if found is None:
            return None
        _check_numbers(loaded, found.logits)
        return training.softmax(found.logits), found.cut_characters

    return Reader("", loaded.entry.name, wrapping.prompt, names, "single_label_classification", read)


def embed(
    loaded: LoadedModel, features: Features, wrapping: Wrapping, texts: Sequence[str], told: Told
) -> tuple[NDArray[np.float32], list[int]] | None:
    """Each text's features, float32 [texts, hidden], and what was cut of it; None where `told` ended it.

    Raises `Unsupported`, `PromptTooLong`, `NoNumbers`.
    """
    if not loaded.engine.abilities.embed:
        raise Unsupported("trained classifiers", loaded.entry.name)
    read = [wrapping.read(loaded.tokenizer, text, loaded.engine.context_tokens) for text in texts]
    made = features.embed(loaded.engine, loaded.entry.name, [each.ids for each in read], told)
    if made is None:
        return None
    _check_numbers(loaded, made)
    return made, [each.cut_characters for each in read]


def probe(loaded: LoadedModel, features: Features) -> NDArray[np.float32]:
    """What the model makes of `PROBE_TEXT`, float32 [hidden]. Raises `Unsupported`."""
    found = embed(loaded, features, Wrapping("{text}"), (PROBE_TEXT,), lambda _, __: True)
    assert found is not None
    made: NDArray[np.float32] = found[0][0]
    return made


def _check_numbers(loaded: LoadedModel, values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise NoNumbers(loaded.entry.name)

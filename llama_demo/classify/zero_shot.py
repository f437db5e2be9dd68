"""Classification without training: how likely the model finds each label where the prompt asks for one.

Two corrections, each of which can be turned off. Length: a label's log-likelihood is divided by its number of tokens,
or long labels could not win. Prior: what the model says of the label after a text without content is taken off, or
labels that are common words would win (Holtzman et al. 2021, Zhao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_demo.classify.labels import Label
from llama_demo.classify.wrapping import PLACE, Wrapping
from llama_demo.errors import InvalidParameter, PromptTooLong
from llama_demo.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_demo.loading import LoadedModel
    from llama_demo.tokenizer import Tokenizer

CONTENT_FREE = ("", "...", "text", "Lorem ipsum")
PROMPTS = (
    "Text: {text}\nCategory:",
    "Review: {text}\nSentiment:",
    "Text: {text}\nEmotion:",
    "Text: {text}\nTopic:",
    "Text: {text}\nLanguage:",
    "Message: {text}\nIntent:",
)
"""What a text may be read in where nobody says: a word before the colon that asks for labels such as the given ones is
worth more than many examples. The first is the general one. See `benchmarks/prompts.py`."""
MARGIN = 2.0
"""How much likelier, in nats, the labels must be after another prompt than after the general one."""
CHUNK_TEXTS = 32
MOST_INSTRUCTION_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Labels and how they are asked for. `instruction` is a sentence before the text, or a whole prompt with `{text}`
    in it that ends where the label comes; empty for a general one. Raises `InvalidParameter`."""

    labels: tuple[Label, ...]
    instruction: str = ""
    normalise_length: bool = True
    correct_prior: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.instruction, str) or len(self.instruction) > MOST_INSTRUCTION_CHARACTERS:
            expected = Reason("expected.text_at_most", most=MOST_INSTRUCTION_CHARACTERS)
            raise InvalidParameter("instruction", self.instruction, expected)
        self.wrappings()

    def wrappings(self) -> tuple[Wrapping, ...]:
        """The prompt, with descriptions where there are any, or the several that there are to choose from."""
        described = [f"{label.name}: {label.description}\n" for label in self.labels if label.description]
        known = "".join(described) + "\n" if described else ""
        if PLACE in self.instruction:
            return (Wrapping(known + self.instruction),)
        asked = f"{self.instruction.strip()}\n\n" if self.instruction.strip() else ""
        return tuple(Wrapping(asked + known + prompt) for prompt in PROMPTS)


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """`logits` float64 [texts, labels], the softmax of which are the probabilities; and what was cut of each text."""

    logits: NDArray[np.float64]
    cut_characters: tuple[int, ...]


def score(
    loaded: LoadedModel, asked: ZeroShot, wrapping: Wrapping, texts: Sequence[str], told: Callable[[int, int], bool]
) -> Likelihoods | None:
    """How likely each label is after each text inside `wrapping`, one of `asked.wrappings()`; None where `told` ended
    it. Blocks; raises `PromptTooLong` where the prompt leaves no room for a text, and what the engine raises."""
    names = [label.name for label in asked.labels]
    dropped, endings = label_endings(loaded.tokenizer, wrapping, names)
    room = loaded.engine.context_tokens - max(map(len, endings)) + dropped
    least = len(loaded.tokenizer.encode_text(wrapping.wrap("")))
    if least >= room:
        raise PromptTooLong(least + max(map(len, endings)), loaded.engine.context_tokens)
    free = CONTENT_FREE if asked.correct_prior else ()
    read = [wrapping.read(loaded.tokenizer, text, room) for text in (*free, *texts)]
    prompts = [each.ids[: len(each.ids) - dropped] for each in read]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    logits = np.empty((len(prompts), len(names)))
    lengths = np.array([len(ending) for ending in endings])
    there = np.arange(lengths.max()) < lengths[:, None]
    for start in range(0, len(order), CHUNK_TEXTS):
        if not told(max(0, start - len(free)), len(texts)):
            return None
        places = order[start : start + CHUNK_TEXTS]
        logprobs = loaded.engine.score_endings([prompts[place] for place in places], endings).astype(np.float64)
        sums = np.where(there, logprobs, 0.0).sum(axis=2)
        logits[places] = sums / lengths if asked.normalise_length else sums
    if free:
        logits -= logits[: len(free)].mean(axis=0)
    return Likelihoods(logits[len(free) :], tuple(each.cut_characters for each in read[len(free) :]))


def choose_prompt(loaded: LoadedModel, wrappings: Sequence[Wrapping], names: Sequence[str]) -> Wrapping:
    """The prompt after which the labels are likeliest, whatever the text: the first, unless another beats it clearly.

    It looks at the labels' names alone, at no example. Raises what the engine raises.
    """
    if len(wrappings) == 1:
        return wrappings[0]
    likely = []
    for wrapping in wrappings:
        dropped, endings = label_endings(loaded.tokenizer, wrapping, names)
        read = [loaded.tokenizer.encode_text(wrapping.wrap(text)) for text in CONTENT_FREE]
        logprobs = loaded.engine.score_endings([ids[: len(ids) - dropped] for ids in read], endings)
        sums = np.nansum(logprobs.astype(np.float64), axis=2)
        likely.append(float(np.logaddexp.reduce(sums, axis=1).mean()))
    best = int(np.argmax(likely))
    return wrappings[best if likely[best] > likely[0] + MARGIN else 0]


def label_endings(tokenizer: Tokenizer, wrapping: Wrapping, names: Sequence[str]) -> tuple[int, list[tuple[int, ...]]]:
    """How many tokens to take off a prompt's end, and the ids that then go on with each label.

    Labels are encoded behind the prompt, since tokens may reach over the border: none are taken off where they do not.
    """
    prompt = wrapping.wrap("x")
    begun = tokenizer.encode_text(prompt)
    space = "" if prompt[-1:].isspace() else " "
    whole = [tokenizer.encode_text(f"{prompt}{space}{name}") for name in names]
    shared = min(_shared(begun, ids) for ids in whole)
    return len(begun) - shared, [tuple(ids[shared:]) for ids in whole]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))

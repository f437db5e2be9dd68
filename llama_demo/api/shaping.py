"""What both endpoints' shapes have in common: usage, and what of a growing answer its reader has not heard yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llama_demo.api.answers import Usage
from llama_demo.api.generating import Answer, Answers


@dataclass(frozen=True, slots=True)
class Streamed:
    """One alternative that has grown: its number among all, what it is now, the new `text`, and how many of its
    `tokens` were told before. `first` where nothing was."""

    index: int
    answer: Answer
    text: str
    tokens: int
    first: bool


class Told:
    """How much of each alternative a stream's reader has heard."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, int]] = {}
        self._ended: set[int] = set()

    def news(self, start: int, answers: Answers) -> Iterator[Streamed]:
        """Those of `answers` that have grown or ended; the first of them is the number `start` among all."""
        for index, one in enumerate(answers.answers, start):
            text, tokens = self._told.get(index, (0, 0))
            ended = one.continuation.finish is not None
            if index in self._ended or (len(one.text) == text and len(one.tokens) == tokens and not ended):
                continue
            yield Streamed(index, one, one.text[text:], tokens, index not in self._told)
            self._told[index] = len(one.text), len(one.tokens)
            if ended:
                self._ended.add(index)


def usage(answers: Sequence[Answers]) -> Usage:
    """Each prompt counts once, however many answers it has."""
    prompt, new = sum(one.prompt_tokens for one in answers), sum(one.new_tokens for one in answers)
    return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)

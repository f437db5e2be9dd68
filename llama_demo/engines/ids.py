"""What every engine checks of the ids it is given: one that the model does not have would end others' requests too."""

from __future__ import annotations

from collections.abc import Sequence

from llama_demo.errors import PromptTooLong


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raises `ValueError` for no ids, or for one that is not the model's."""
    if not ids:
        raise ValueError("ids are empty")
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise ValueError(f"ids must be from 0 to {vocabulary - 1}")


def check_text(ids: Sequence[int], vocabulary: int, context_tokens: int) -> None:
    """A text that is to be read whole. Raises `ValueError`, `PromptTooLong`."""
    check_ids(ids, vocabulary)
    if len(ids) > context_tokens:
        raise PromptTooLong(len(ids), context_tokens)


def check_endings(
    prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]], vocabulary: int, context_tokens: int
) -> None:
    """Every ending must fit behind every prompt. Raises `ValueError`, `PromptTooLong`."""
    for ids in (*prompts, *endings):
        check_text(ids, vocabulary, context_tokens)
    if not (prompts and endings):
        raise ValueError("there must be prompts and endings")
    longest = max(endings, key=len)
    for ids in prompts:
        check_text([*ids, *longest], vocabulary, context_tokens)

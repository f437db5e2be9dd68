"""Gives components their words from the message table, and gives them anew in a visitor's own language.

It knows no component by name: whoever builds one says which of its properties is which key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gradio as gr

from llama_demo.messages import DEFAULT_LANGUAGE, Messages

C = TypeVar("C")
Worded = Mapping[str, str] | Callable[[Messages], Mapping[str, Any]]
"""Properties by the key of their text, or all of them computed from the table."""


class Wording:
    """The words of one page. Build every component that shows words with `make`."""

    def __init__(self, tables: Callable[[str], Messages]) -> None:
        self._tables = tables
        self._words = tables(DEFAULT_LANGUAGE)
        self._made: list[tuple[Any, Worded]] = []

    def make(self, kind: Callable[..., C], worded: Worded, **options: Any) -> C:
        """A component of `kind` with its words in the default language."""
        component = kind(**_properties(worded, self._words), **options)
        self._made.append((component, worded))
        return component

    @property
    def components(self) -> list[Any]:
        """Everything that was made, in the order of `updates`."""
        return [component for component, _ in self._made]

    def updates(self, language: str) -> list[Any]:
        """What turns the page as it was built into `language`; nothing to do for the one it was built in."""
        if self._tables(language).language == self._words.language:
            return [gr.skip() for _ in self._made]
        return self.reworded(language)

    def reworded(self, language: str) -> list[Any]:
        """What turns the page into `language`, whichever it speaks now."""
        words = self._tables(language)
        return [gr.update(**_properties(worded, words)) for _, worded in self._made]


def _properties(worded: Worded, words: Messages) -> Mapping[str, Any]:
    if callable(worded):
        return worded(words)
    return {name: words(key) for name, key in worded.items()}

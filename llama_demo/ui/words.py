"""Gives components their words from the message table, and gives them anew in a visitor's own language.

It knows no component by name: whoever builds one says which of its properties is which key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gradio as gr

from llama_demo.messages import DEFAULT_LANGUAGE, Messages

C = TypeVar("C")
Language = Callable[[str], Messages]
"""The table of a language; the default one where there is none."""


class Wording:
    """The words of one page. Build every component that shows words with `make`."""

    def __init__(self, tables: Language) -> None:
        self._tables = tables
        self._words = tables(DEFAULT_LANGUAGE)
        self._made: list[tuple[Any, Mapping[str, str]]] = []

    def make(self, kind: Callable[..., C], keys: Mapping[str, str], **options: Any) -> C:
        """A component of `kind` whose properties named in `keys` hold the table's texts."""
        component = kind(**{name: self._words(key) for name, key in keys.items()}, **options)
        self._made.append((component, keys))
        return component

    @property
    def components(self) -> list[Any]:
        """Everything that was made, in the order of `updates`."""
        return [component for component, _ in self._made]

    def updates(self, language: str) -> list[Any]:
        """What turns the page into `language`; nothing to do for the one it was built in."""
        words = self._tables(language)
        if words.language == self._words.language:
            return [gr.skip() for _ in self._made]
        return [gr.update(**{name: words(key) for name, key in keys.items()}) for _, keys in self._made]

"""Every word shown to a person, from one JSON table a language. Another language is one more file here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from llama_demo.errors import LlamaDemoError
from llama_demo.reasons import Reason

DEFAULT_LANGUAGE = "en"
_HEADER_CHARACTERS = 500
"""Of an `Accept-Language` header, which anybody can make as long as they like."""


@dataclass(frozen=True, slots=True)
class Messages:
    """The table of one language; a key it lacks is a `KeyError`, found by the tests."""

    language: str
    table: Mapping[str, str]

    def __call__(self, key: str, **data: object) -> str:
        """The text of `key` with its placeholders filled."""
        return self.table[key].format(**data)

    def sentence(self, text: str) -> str:
        """The words of the key `text`, or the owner's own words as they are."""
        return self.table.get(text, text)

    def under(self, prefix: str) -> dict[str, str]:
        """All texts whose keys begin with `prefix`, by the rest of their keys, with their placeholders as they are."""
        return {key.removeprefix(prefix): text for key, text in self.table.items() if key.startswith(prefix)}

    def error(self, error: BaseException) -> str:
        """What happened, then what to do. An error that is not ours gets general words, never its own text."""
        if not isinstance(error, LlamaDemoError):
            return self("error.unexpected")
        return self._filled(f"error.{type(error).__name__}", error.data())

    def reason(self, reason: Reason) -> str:
        """Why something was refused, for the middle of a sentence."""
        return self._filled(f"reason.{reason.key}", reason.data)

    def _filled(self, key: str, data: Mapping[str, object]) -> str:
        return self(key, **{name: self._worded(name, value) for name, value in data.items()})

    def _worded(self, name: str, value: object) -> object:
        if name.endswith("_bytes") and isinstance(value, int):
            return size(value)
        if name.endswith("seconds") and isinstance(value, (int, float)):
            return f"{value:.0f}"
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        if isinstance(value, Reason):
            return self.reason(value)
        if isinstance(value, BaseException):
            return self.error(value)
        return shortened(str(value))


def shortened(text: str, limit: int = 80) -> str:
    """`text` on one line, cut to `limit` characters, so that hostile input cannot flood a message."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def size(count: int) -> str:
    """Bytes in the unit a person would use: `145 MB`, `13.5 GB` (decimal units, as file managers show)."""
    if count < 1_000_000:
        return f"{count / 1e3:.0f} kB"
    if count < 1_000_000_000:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


@cache
def languages() -> tuple[str, ...]:
    """The languages there is a table for, the default first."""
    folder = resources.files(__package__)
    found = {file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")}
    return (DEFAULT_LANGUAGE, *sorted(found - {DEFAULT_LANGUAGE}))


def preferred(accept_language: str) -> str:
    """The language of an `Accept-Language` header that its sender likes best of those there is a table for."""
    wishes = []
    for position, part in enumerate(accept_language[:_HEADER_CHARACTERS].split(",")):
        tag, _, weight = part.strip().partition(";q=")
        try:
            wishes.append((-float(weight or 1), position, tag.split("-")[0].lower()))
        except ValueError:
            continue
    return next((tag for weight, _, tag in sorted(wishes) if weight < 0 and tag in languages()), DEFAULT_LANGUAGE)


@cache
def messages(language: str = DEFAULT_LANGUAGE) -> Messages:
    """The table of `language`, or the default one where there is none."""
    chosen = language if language in languages() else DEFAULT_LANGUAGE
    text = resources.files(__package__).joinpath(f"{chosen}.json").read_text(encoding="utf-8")
    return Messages(chosen, json.loads(text))

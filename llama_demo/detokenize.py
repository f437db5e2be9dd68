"""From ids to text, a piece at a time: never half a character, never half a stop string. It knows no engine."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from llama_demo.tokenizer import Tokenizer

_CHARACTER_BYTES = 4
"""No character is longer, so no more of what came before can still be waiting for its end."""


class PieceStream:
    """The text of ids as they come. All pieces joined are exactly the whole text, but for a character that is cut in
    the middle at the end: that is left out.

    It works on bytes of its own, because the library's streaming decoder raises where a broken character follows a
    whole one, which a model may well write; here that is a replacement mark.

    `after` are the ids of the text that is being continued: a character that they leave open is completed, and a word
    after them keeps its space.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strips = tokenizer.strips_spaces
        tail = b""
        for number in reversed(after):
            tail = tokenizer.token_bytes(number) + tail
            if len(tail) >= _CHARACTER_BYTES:
                break
        self._text(tail)

    def add(self, ids: Sequence[int]) -> str:
        """The text that has become whole with `ids`."""
        return self._text(b"".join(map(self._tokenizer.token_bytes, ids)))

    def _text(self, raw: bytes) -> str:
        text = self._bytes.decode(raw)
        if self._strips and text:
            spaces = min(self._strips, len(text) - len(text.lstrip(" ")))
            self._strips = self._strips - spaces if spaces == len(text) else 0
            return text[spaces:]
        return text


class StopStrings:
    """Lets text through up to the first stop string, holding back just what might be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string has been met: then nothing after it counts."""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def end(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)

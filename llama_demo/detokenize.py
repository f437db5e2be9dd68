"""From ids to text, a piece at a time: never half a character, never half a stop string. It knows no engine."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream

from llama_demo.tokenizer import Tokenizer

_CONTEXT_IDS = 8
"""So many ids before the first settle how its text begins."""


class PieceStream:
    """The text of ids as they come. All pieces and the end, joined, are exactly the whole text.

    `after` are the ids of the text that is being continued: its last word decides whether a space comes first.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []
        for number in after[-_CONTEXT_IDS:]:
            self._stream.step(tokenizer.backend, number)

    def add(self, ids: Sequence[int]) -> str:
        """The text that has become whole with `ids`."""
        pieces = []
        for number in ids:
            self._held.append(number)
            piece = self._stream.step(self._tokenizer.backend, number)
            if piece is not None:
                pieces.append(piece)
                self._held.clear()
        return "".join(pieces)

    def end(self) -> str:
        """What is still held back, if it is whole: a text may end with a replacement mark of its own, but a character
        that was cut in the middle is left out."""
        text = self._tokenizer.decode(self._held)
        return text if text and self._tokenizer.encode(text) == self._held else ""


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

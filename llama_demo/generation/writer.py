"""One request's tokens as text: its pieces, its stop strings, and when they came. It knows no prompt and no model."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llama_demo.detokenize import PieceStream, StopStrings
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import FinishReason, ScoredToken, Token


class Writer:
    """`after` are the ids that the tokens continue in the middle of a text; `begins_with` is what the text has already.
    With `named` it keeps the tokens by their names.

    Nothing after the first stop string counts, whenever it is read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        *,
        after: Sequence[int] = (),
        begins_with: str = "",
        named: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._named = named
        self._pieces = PieceStream(tokenizer, after)
        self._stops = StopStrings(stops)
        self.text = begins_with
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.tokens: list[ScoredToken] = []
        self.finish: FinishReason | None = None
        self.first_time = self.last_time = 0.0
        """By `time.monotonic`, of the first and the newest token."""

    def add(self, tokens: Sequence[Token]) -> None:
        """More tokens. `finish` is set where a stop string has come."""
        if not tokens or self.finish is not None:
            return
        self.last_time = time.monotonic()
        if not self.ids:
            self.first_time = self.last_time
        for token in tokens:
            self.ids.append(token.id)
            self.logprobs.append(token.logprob)
            piece = self._pieces.add([token.id])
            self._name(token, piece)
            text, hit = self._stops.add(piece)
            self.text += text
            if hit:
                self.finish = "stop"
                return

    def end(self, reason: FinishReason | None, end: Token | None = None) -> None:
        """No more tokens come, for `reason`; `end` is the model's end token, where that is it."""
        if self.finish is None:
            self.text += self._stops.end()
            self.finish = reason or "cancelled"
            if end is not None:
                self._name(end, "")

    def _name(self, token: Token, text: str) -> None:
        if self._named:
            name, raw = self._tokenizer.token_name(token.id), self._tokenizer.token_bytes(token.id)
            self.tokens.append(ScoredToken(token.id, name, text, token.logprob, None, None, (), raw))

"""What a remote server is asked, as OpenAI's API says it, and what it streams back, as pieces of text. No network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_demo.api_errors import UnsupportedParameter
from llama_demo.errors import Unsupported
from llama_demo.values import FinishReason, Sampling, ScoredToken, TokenAlternative, Turn

EXTENSIONS = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What OpenAI's own API does not have, and the value of each that changes nothing."""
UNKNOWN_ID = -1
"""The API gives tokens by their text alone."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A conversation to answer, or a text or its token ids to go on with, and how.

    With `continue_last` the last turn, the assistant's, is gone on with. `top` is how many alternatives each token
    comes with; None for tokens without probabilities. With `echo` the prompt comes first, its tokens too.
    """

    source: tuple[Turn, ...] | tuple[int, ...] | str
    sampling: Sampling
    stops: tuple[str, ...] = ()
    continue_last: bool = False
    top: int | None = None
    echo: bool = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation, where it is one; else none."""
        return tuple(turn for turn in self.source if isinstance(turn, Turn))


@dataclass(frozen=True, slots=True)
class Piece:
    """More of an answer. The server's own counts of tokens come with the last one, where it gives them."""

    text: str
    tokens: tuple[ScoredToken, ...] = ()
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    finish: FinishReason | None = field(default=None, compare=False)


class Answered:
    """What has come of an ask, to see whether the server did all of it: many leave out what they do not know."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens = self._prompt_tokens = 0

    def add(self, piece: Piece) -> None:
        self._text += piece.text
        self._tokens += len(piece.tokens)
        self._prompt_tokens = piece.prompt_tokens or self._prompt_tokens

    def lacks(self, ask: Ask) -> str | None:
        """What was asked for and has not come; None where nothing is missing."""
        if ask.echo and isinstance(ask.source, str) and not self._text.startswith(ask.source):
            return "echo"
        if ask.top is not None and self._text and not self._tokens:
            return "log-probabilities"
        if ask.top is not None and ask.echo and self._tokens < self._prompt_tokens:
            return "log-probabilities of a prompt"
        return None


def parameters(ask: Ask, model: str, *, has_extensions: bool) -> dict[str, Any]:
    """The arguments of the client's call. Raises `Unsupported`, `UnsupportedParameter` for what the server lacks."""
    sampling = ask.sampling
    extra = _extensions(sampling, has_extensions=has_extensions)
    given: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            given[name] = getattr(sampling, name)
    if ask.stops:
        given["stop"] = list(ask.stops)
    if ask.turns:
        given["messages"] = messages(ask.turns)
        if ask.top is not None:
            given |= {"logprobs": True, "top_logprobs": ask.top}
    else:
        given["prompt"] = ask.source if isinstance(ask.source, str) else list(ask.source)
        if ask.top is not None:
            given["logprobs"] = ask.top
        if ask.echo:
            given["echo"] = True
    if ask.continue_last:
        if not has_extensions:
            raise Unsupported("going on with a reply", model)
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    return {**given, "extra_body": extra} if extra else given


def messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """As the API has a conversation."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _extensions(sampling: Sampling, *, has_extensions: bool) -> dict[str, Any]:
    """Those that change something. A server without them is spared what nobody has chosen, and refuses the rest."""
    wanted = {name: getattr(sampling, name) for name, neutral in EXTENSIONS.items()}
    wanted = {name: value for name, value in wanted.items() if value != EXTENSIONS[name]}
    if has_extensions:
        return wanted
    usual = Sampling()
    for name, value in wanted.items():
        if value != getattr(usual, name):
            raise UnsupportedParameter(name, "api.remote_lacks")
    return {}


def read_piece(chunk: Any) -> Piece:
    """One event of a stream, of either endpoint. Raises `ValueError` for what is none."""
    try:
        return _read(chunk)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no event of a stream: {error}") from None


def _read(chunk: Any) -> Piece:
    prompt, new = _counts(chunk.usage) if getattr(chunk, "usage", None) else (None, None)
    if not chunk.choices:
        return Piece("", (), prompt, new)
    choice = chunk.choices[0]
    is_chat = hasattr(choice, "delta")
    text = (choice.delta.content if is_chat else choice.text) or ""
    if not isinstance(text, str):
        raise TypeError("a text that is none")
    logprobs = getattr(choice, "logprobs", None)
    tokens: list[ScoredToken] = []
    if logprobs is not None:
        tokens = _chat_tokens(logprobs) if is_chat else _completion_tokens(logprobs)
    return Piece(text, tuple(tokens), prompt, new, _finish(choice.finish_reason))


def _counts(usage: Any) -> tuple[int, int]:
    return int(usage.prompt_tokens), int(usage.completion_tokens or 0)


def _finish(reason: object) -> FinishReason | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def _chat_tokens(logprobs: Any) -> list[ScoredToken]:
    return [
        _token(
            one.token,
            one.token,
            one.logprob,
            [TokenAlternative(UNKNOWN_ID, each.token, each.logprob, _raw(each)) for each in one.top_logprobs or ()],
            _raw(one),
        )
        for one in logprobs.content or ()
    ]


def _completion_tokens(logprobs: Any) -> list[ScoredToken]:
    """The API tells a token's text alone, so its bytes are those of that text."""
    tops: Sequence[Mapping[str, float] | None] = logprobs.top_logprobs or [None] * len(logprobs.tokens)
    made = []
    for name, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True):
        others = [TokenAlternative(UNKNOWN_ID, other, value, other.encode()) for other, value in (top or {}).items()]
        others.sort(key=lambda other: -other.logprob)
        made.append(_token(name, name, logprob, others, name.encode()))
    return made


def _token(name: str, text: str, logprob: float | None, top: Sequence[TokenAlternative], raw: bytes) -> ScoredToken:
    if logprob is not None and not math.isfinite(logprob):
        logprob = None
    return ScoredToken(UNKNOWN_ID, name, text, logprob, None, None, tuple(top), raw)


def _raw(token: Any) -> bytes:
    return bytes(token.bytes) if token.bytes else b""

"""What the OpenAI API answers, whole and in pieces: shapes alone, which the description of the API is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from llama_demo.values import FinishReason, ScoredToken

Finish = Literal["stop", "length"]

LEAST_LOGPROB = -9999.0
"""Stands for what has no probability at all: JSON knows no infinity."""


class Usage(BaseModel):
    """In tokens. An end token is not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(BaseModel):
    """`bytes` is null for special tokens."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class CompletionLogprobs(BaseModel):
    """One entry a token of the text, an end token included. The first of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None


class Head(BaseModel):
    """`system_fingerprint` names what a seed's text depends on: the version and the profile."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatAnswer(Head):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class CompletionAnswer(Head):
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Delta(BaseModel):
    """Only what is new."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=lambda role: role is None)
    content: str | None = Field(default=None, exclude_if=lambda content: content is None)


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class ChatChunk(Head):
    """One event of a stream. `usage` is there where it was asked for, and null but in the last."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Model(BaseModel):
    """`state` is an extension: `absent` until its first question, `ready`, or `failed` where it cannot answer now."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    state: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


def finish(reason: FinishReason | None) -> Finish | None:
    """The API knows no request that its reader cancelled."""
    return "stop" if reason == "cancelled" else reason


def chat_logprobs(tokens: list[ScoredToken]) -> ChatLogprobs:
    """In the shape of chat completions."""
    return ChatLogprobs(
        content=[
            TokenLogprob(
                **_named(one.token, one.logprob, one.raw).model_dump(),
                top_logprobs=[_named(other.token, other.logprob, other.raw) for other in one.top],
            )
            for one in tokens
        ]
    )


def completion_logprobs(tokens: list[ScoredToken], *, offset: int, top: bool) -> CompletionLogprobs:
    """In the shape of completions; the first of `tokens` begins at `offset`."""
    offsets = []
    for one in tokens:
        offsets.append(offset)
        offset += len(one.text)
    return CompletionLogprobs(
        tokens=[one.token for one in tokens],
        token_logprobs=[None if one.logprob is None else max(one.logprob, LEAST_LOGPROB) for one in tokens],
        top_logprobs=[_top(one) for one in tokens] if top else None,
        text_offset=offsets,
    )


def _top(token: ScoredToken) -> dict[str, float] | None:
    """The likeliest and the token itself, with the very number that it has elsewhere. None for a text's first token."""
    if token.logprob is None:
        return None
    found = {other.token: other.logprob for other in reversed(token.top)} | {token.token: token.logprob}
    return {name: max(logprob, LEAST_LOGPROB) for name, logprob in found.items()}


def _named(token: str, logprob: float | None, raw: bytes) -> TopLogprob:
    known = LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)
    return TopLogprob(token=token, logprob=known, bytes=list(raw) or None)

"""`POST /v1/chat/completions`: what is asked, and the shape of its answer, whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_demo.api.answers import (
    AssistantMessage,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    chat_logprobs,
    finish,
)
from llama_demo.api.generating import Answer, Answers, Ask
from llama_demo.api.requests import ChatRequest
from llama_demo.api.shaping import Streamed, usage
from llama_demo.api_errors import UnsupportedParameter
from llama_demo.values import CompletionRequest


class Chat:
    """One request for the next turn of a conversation."""

    prefix = "chatcmpl-"
    chunk = ChatChunk

    def __init__(self, asked: ChatRequest, longest: int) -> None:
        """`longest` is what this server gives where no length is asked for. Raises `InvalidInput`."""
        wanted, older = asked.max_completion_tokens, asked.max_tokens
        if wanted is not None and older is not None and wanted != older:
            raise UnsupportedParameter("max_tokens", "api.two_lengths")
        if asked.top_logprobs is not None and not asked.logprobs:
            raise UnsupportedParameter("top_logprobs", "api.needs_logprobs")
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        if asked.stream and top:
            raise UnsupportedParameter("top_logprobs", "api.not_streamed")
        tokens = wanted or older or longest
        turns = tuple(message.turn() for message in asked.messages)
        request = CompletionRequest(
            turns, asked.sampling(tokens), asked.stops, asked.n or 1, named=asked.logprobs is True
        )
        self.asks = [Ask(request, top)]
        self._logprobs = top is not None

    def whole(self, answers: Sequence[Answers], head: dict[str, object]) -> ChatAnswer:
        """The answer to a request that is not streamed."""
        choices = [
            ChatChoice(
                index=index,
                message=AssistantMessage(content=one.text),
                logprobs=self._tokens(one, 0),
                finish_reason=finish(one.continuation.finish) or "stop",
            )
            for index, one in enumerate(answers[0].answers)
        ]
        return ChatAnswer(**head, choices=choices, usage=usage(answers))  # type: ignore[arg-type]

    def pieces(self, new: Streamed) -> Iterator[ChunkChoice]:
        """What one alternative has more than its reader has heard."""
        if new.first:
            yield ChunkChoice(index=new.index, delta=Delta(role="assistant", content=""))
        logprobs = self._tokens(new.answer, new.tokens)
        if new.text or (logprobs and logprobs.content):
            yield ChunkChoice(index=new.index, delta=Delta(content=new.text), logprobs=logprobs)
        if (reason := finish(new.answer.continuation.finish)) is not None:
            yield ChunkChoice(index=new.index, delta=Delta(), finish_reason=reason)

    def _tokens(self, one: Answer, start: int) -> ChatLogprobs | None:
        """An end token is none of the message's."""
        written = one.tokens[start : one.continuation.new_tokens]
        return chat_logprobs(list(written)) if self._logprobs else None

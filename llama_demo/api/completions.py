"""`POST /v1/completions`: what is asked, and the shape of its answer, whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_demo.api.answers import (
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    completion_logprobs,
    finish,
)
from llama_demo.api.generating import Answer, Answers, Ask
from llama_demo.api.requests import CompletionsRequest
from llama_demo.api.shaping import Streamed, usage
from llama_demo.api_errors import UnsupportedParameter
from llama_demo.values import CompletionRequest

_DEFAULT_TOKENS = 16
"""As the API has it."""


class Completions:
    """One request to go on with one or several prompts."""

    prefix = "cmpl-"
    chunk = CompletionAnswer

    def __init__(self, asked: CompletionsRequest) -> None:
        """Raises `InvalidInput`."""
        tokens = _DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
        if tokens == 0 and not asked.echo:
            raise UnsupportedParameter("max_tokens", "api.nothing_asked")
        if asked.best_of not in (None, asked.n or 1):
            raise UnsupportedParameter("best_of", "api.not_ranked")
        if asked.stream and (asked.logprobs or (asked.echo and asked.logprobs is not None)):
            raise UnsupportedParameter("logprobs", "api.not_streamed")
        self._logprobs = asked.logprobs
        self.asks = [
            Ask(
                CompletionRequest(
                    prompt,
                    asked.sampling(max(tokens, 1)),
                    asked.stops,
                    asked.n or 1,
                    named=asked.logprobs is not None,
                ),
                top=asked.logprobs,
                echo=bool(asked.echo),
                only_prompt=tokens == 0,
            )
            for prompt in asked.prompts()
        ]

    def whole(self, answers: Sequence[Answers], head: dict[str, object]) -> CompletionAnswer:
        """The answer to a request that is not streamed."""
        each = [one for found in answers for one in found.answers]
        choices = [
            CompletionChoice(
                index=index,
                text=one.text,
                logprobs=self._tokens(one, 0, 0),
                finish_reason=finish(one.continuation.finish),
            )
            for index, one in enumerate(each)
        ]
        return CompletionAnswer(**head, choices=choices, usage=usage(answers))  # type: ignore[arg-type]

    def pieces(self, new: Streamed) -> Iterator[CompletionChoice]:
        """What one alternative has more than its reader has heard."""
        offset = sum(len(token.text) for token in new.answer.tokens[: new.tokens])
        yield CompletionChoice(
            index=new.index,
            text=new.text,
            logprobs=self._tokens(new.answer, new.tokens, offset),
            finish_reason=finish(new.answer.continuation.finish),
        )

    def _tokens(self, one: Answer, start: int, offset: int) -> CompletionLogprobs | None:
        if self._logprobs is None:
            return None
        return completion_logprobs(list(one.tokens[start:]), offset=offset, top=self._logprobs > 0)

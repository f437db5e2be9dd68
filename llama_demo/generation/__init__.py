"""Everything between text and token ids: the prompt, what is cut from it, the pieces, the stop strings, the scores.

It knows no page and no protocol: the page, the Gradio API and the HTTP API all read the same updates from here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from llama_demo.engines.remote import RemoteServer
from llama_demo.errors import EmptyMessage
from llama_demo.generation import completion, remote, scoring
from llama_demo.generation.chat import ChatRequest, answer
from llama_demo.leasing import Done, Leasing, Seat, Stopper, no_remote
from llama_demo.limits import Admission, Limits
from llama_demo.loading import LoadedModel
from llama_demo.metrics import Metrics
from llama_demo.observe import LOG, one_line
from llama_demo.registry import Registry
from llama_demo.values import (
    ChatUpdate,
    Completion,
    CompletionRequest,
    CompletionUpdate,
    LoadProgress,
    Reply,
    Sampling,
    ScoredText,
    Turn,
    Waiting,
)

__all__ = ["Generation", "Stopper"]


def _same(model: str) -> str:
    return model


class Generation:
    """Chat, completions and scores on leased models.

    Updates come again while nothing happens, so that whoever reads can leave. Closing a generator cancels its request;
    it sets flags only and never blocks. All methods raise `InvalidInput` for what the caller sent, `Busy`, and whatever
    loading the model raises.
    """

    def __init__(
        self,
        registry: Registry[LoadedModel],
        limits: Limits,
        admission: Admission,
        *,
        log_prompts: bool = False,
        scores_with: Callable[[str], str] = _same,
        remote: Callable[[str], RemoteServer | None] = no_remote,
        metrics: Metrics | None = None,
    ) -> None:
        """`scores_with` gives the name under which a model's scores are leased, `remote` the server of one that runs
        elsewhere."""
        self._leasing = Leasing(registry, admission, metrics, remote)
        self._limits = limits
        self._log_prompts = log_prompts
        self._scores_with = scores_with

    async def chat(
        self,
        turns: Sequence[Turn],
        *,
        model: str,
        sampling: Sampling,
        continue_last: bool = False,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[ChatUpdate, None]:
        """The reply to `turns`, as it grows: first, where they apply, the place in the line and the load's progress.

        `continue_last` goes on with the last turn, which must be the assistant's; the reply's text then begins with it.
        """
        with self._leasing.metrics.request("chat") as identity:
            if not turns or (turns[-1].role == "assistant") != continue_last:
                raise EmptyMessage()
            self._limits.check(turns)
            stopper = stopper or Stopper()
            request = ChatRequest(tuple(turns), self._limits.clamp(sampling), continue_last)
            async with aclosing(self._leasing.seat(model, stopper)) as steps:
                async for step in steps:
                    if not isinstance(step, Seat | RemoteServer):
                        yield step
                        continue
                    made = (
                        remote.answer(step, request, stopper, self.update_seconds)
                        if isinstance(step, RemoteServer)
                        else answer(step.loaded, request, stopper, self.update_seconds)
                    )
                    async with aclosing(self._replies(made, request, stopper, identity)) as replies:
                        async for reply in replies:
                            yield reply

    async def _replies(
        self, made: AsyncGenerator[Reply, None], request: ChatRequest, stopper: Stopper, identity: str
    ) -> AsyncGenerator[Reply, None]:
        reply: Reply | None = None
        try:
            async with aclosing(made):
                async for reply in made:
                    if reply.finish is not None:
                        self._log_chat(identity, reply, request)
                    yield reply if stopper.error is None else replace(reply, finish=None)
        finally:
            if reply is not None:
                read, written = reply.prompt_tokens, reply.new_tokens
                self._leasing.spend(stopper.visitor, read=read, written=written, speed=reply.speed)

    async def complete(
        self, request: CompletionRequest, *, model: str, stopper: Stopper | None = None
    ) -> AsyncGenerator[CompletionUpdate, None]:
        """The continuations of a prompt, side by side, as they grow. However many there are, they take one place in the
        line. Raises `PromptTooLong` for a prompt that leaves no room in the context, unless it may be trimmed."""
        with self._leasing.metrics.request("completion") as identity:
            self._limits.check_characters(completion.characters(request))
            stopper = stopper or Stopper()
            sampling = self._limits.clamp(request.sampling)
            async with aclosing(self._leasing.seat(model, stopper)) as steps:
                async for step in steps:
                    if not isinstance(step, Seat | RemoteServer):
                        yield step
                        continue
                    made = (
                        remote.complete(step, request, sampling, stopper, self.update_seconds)
                        if isinstance(step, RemoteServer)
                        else completion.complete(step.loaded, request, sampling, stopper, self.update_seconds)
                    )
                    async with aclosing(self._completions(made, stopper, identity)) as updates:
                        async for update in updates:
                            yield update

    async def _completions(
        self, made: AsyncGenerator[Completion, None], stopper: Stopper, identity: str
    ) -> AsyncGenerator[Completion, None]:
        update: Completion | None = None
        try:
            async with aclosing(made):
                async for update in made:
                    if update.finished:
                        self._log_completion(identity, update)
                    yield update
        finally:
            if update is not None:
                read, written = update.prompt_tokens, update.new_tokens
                self._leasing.spend(stopper.visitor, read=read, written=written, speed=update.speed)

    async def score(
        self,
        source: str | Sequence[int] | Sequence[Turn],
        *,
        model: str,
        top_k: int,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[LoadProgress | Waiting | ScoredText, None]:
        """What the model thinks of every token of a text, of token ids, or of a conversation that ends with the
        assistant's turn, with `top_k` alternatives each; last the scores, unless stopped.

        Raises `PromptTooLong` for more than the context holds; a conversation loses its oldest turns instead.
        """
        with self._leasing.metrics.request("score") as identity:
            wanted, count = scoring.check_source(source, self._limits), scoring.check_top_k(top_k)
            name = self._scores_with(model)
            stopper = stopper or Stopper()
            started, scored = time.monotonic(), None
            calls = self._leasing.call(name, lambda loaded: scoring.score(loaded, wanted, count), stopper)
            async with aclosing(calls):
                async for step in calls:
                    if not isinstance(step, Done):
                        yield step
                        continue
                    seconds, tokens = time.monotonic() - started, len(step.value.tokens)
                    self._leasing.spend(stopper.visitor, read=tokens, written=0)
                    form = "request=%s kind=score model=%s tokens=%d seconds=%.2f"
                    LOG.info(form, identity, one_line(model), tokens, seconds)
                    scored = step.value
        if scored is not None:
            yield scored

    def update_seconds(self) -> float:
        """See `Leasing.update_seconds`."""
        return self._leasing.update_seconds()

    def _log_chat(self, identity: str, reply: Reply, request: ChatRequest) -> None:
        LOG.info(
            "request=%s kind=chat model=%s prompt_tokens=%d new_tokens=%d finish=%s",
            identity,
            one_line(reply.model),
            reply.prompt_tokens,
            reply.new_tokens,
            reply.finish,
        )
        if self._log_prompts:
            LOG.info(
                "request=%s message=%s reply=%s", identity, one_line(request.turns[-1].content), one_line(reply.text)
            )

    def _log_completion(self, identity: str, made: Completion) -> None:
        LOG.info(
            "request=%s kind=completion model=%s prompt_tokens=%d new_tokens=%d finish=%s",
            identity,
            one_line(made.model),
            made.prompt_tokens,
            made.new_tokens,
            ",".join(one.finish or "" for one in made.continuations),
        )
        if self._log_prompts:
            texts = " | ".join(one_line(one.text) for one in made.continuations)
            LOG.info("request=%s prompt=%s text=%s", identity, one_line(made.prompt), texts)

"""The named Gradio endpoints, thin over the runtime: `/chat`, `/generate` and `/score` answer, `/models` lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.leasing import Stopper
from llama_demo.observe import LOG
from llama_demo.reasons import Reason
from llama_demo.values import Completion, CompletionRequest, Reply, Sampling, ScoredText, ScoredToken, turns_from

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_DEFAULTS = Sampling()
_SCORED_TOP_K = 5


class Endpoints:
    """Handlers for programs: plain values in and out, an error as one sentence."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def chat(  # noqa: PLR0917 - the fixed public interface
        self,
        message: str,
        history: list[dict[str, Any]] | None = None,
        model: str = "",
        system_prompt: str = "",
        max_new_tokens: int = _DEFAULTS.max_new_tokens,
        temperature: float = _DEFAULTS.temperature,
        top_p: float = _DEFAULTS.top_p,
        top_k: int = _DEFAULTS.top_k,
        repetition_penalty: float = _DEFAULTS.repetition_penalty,
        seed: int | None = None,
        asked: gr.Request | None = None,
    ) -> AsyncIterator[str]:
        """Streams the reply so far; the last value is the whole reply.

        Parameters:
            message: what to say to the model
            history: the earlier turns, each with a role (user, assistant or system) and a content
            model: a name from /models; empty for the default
            system_prompt: how the model should behave
            max_new_tokens: the longest reply, in tokens
            temperature: 0 for the likeliest token each time; higher for more variety
            top_p: draw from the likeliest tokens that together have this probability
            top_k: draw from this many of the likeliest tokens; 0 for no limit
            repetition_penalty: above 1, tokens that were there already become less likely
            seed: the same seed repeats the same text; none for a random one
        """
        try:
            if not isinstance(message, str):
                raise InvalidParameter("message", message, Reason("expected.text"))
            updates = self._runtime.generation.chat(
                turns_from(history or [], message, system_prompt or ""),
                model=self._model(model),
                sampling=Sampling(
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=top_k,
                    repetition_penalty=repetition_penalty,
                    seed=seed,
                ),
                stopper=self._stopper(asked),
            )
            async with aclosing(updates):
                async for update in updates:
                    yield update.text if isinstance(update, Reply) else ""
        except Exception as error:
            raise worded(self._runtime, error) from None

    async def generate(  # noqa: PLR0917 - the fixed public interface
        self,
        prompt: str,
        model: str = "",
        max_new_tokens: int = _DEFAULTS.max_new_tokens,
        temperature: float = _DEFAULTS.temperature,
        top_p: float = _DEFAULTS.top_p,
        top_k: int = _DEFAULTS.top_k,
        min_p: float = _DEFAULTS.min_p,
        repetition_penalty: float = _DEFAULTS.repetition_penalty,
        seed: int | None = None,
        stop: list[str] | None = None,
        n: int = 1,
        asked: gr.Request | None = None,
    ) -> AsyncIterator[str | list[str]]:
        """Streams the continuation of a raw text so far, without the prompt; a list of them where `n` is above 1.

        Parameters:
            prompt: the text to continue; empty to start from nothing
            model: a name from /models; empty for the default
            max_new_tokens: the longest continuation, in tokens
            temperature: 0 for the likeliest token each time; higher for more variety
            top_p: draw from the likeliest tokens that together have this probability
            top_k: draw from this many of the likeliest tokens; 0 for no limit
            min_p: leave out tokens less likely than this share of the likeliest one's probability
            repetition_penalty: above 1, tokens that were there already become less likely
            seed: the same seed repeats the same text; none for a random one
            stop: texts that end the continuation, which is given without them
            n: how many continuations, side by side
        """
        try:
            if not isinstance(prompt, str):
                raise InvalidParameter("prompt", prompt, Reason("expected.text"))
            sampling = Sampling(
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                seed=seed,
            )
            request = CompletionRequest(prompt, sampling, () if stop is None else stop, n)  # type: ignore[arg-type]
            texts = [""] * request.n
            updates = self._runtime.generation.complete(request, model=self._model(model), stopper=self._stopper(asked))
            async with aclosing(updates):
                async for update in updates:
                    if isinstance(update, Completion):
                        texts = [one.text for one in update.continuations]
                    yield texts if request.n > 1 else texts[0]
        except Exception as error:
            raise worded(self._runtime, error) from None

    async def score(
        self, text: str, model: str = "", top_k: int = _SCORED_TOP_K, asked: gr.Request | None = None
    ) -> list[dict[str, Any]]:
        """What the model thinks of a text: each token with its log-probability and the likeliest alternatives.

        Parameters:
            text: the text to read
            model: a name from /models; empty for the default
            top_k: how many alternatives a token
        """
        try:
            if not isinstance(text, str):
                raise InvalidParameter("text", text, Reason("expected.text"))
            scores = self._runtime.generation.score(
                text, model=self._model(model), top_k=top_k, stopper=self._stopper(asked)
            )
            scored: ScoredText | None = None
            async with aclosing(scores) as updates:
                async for update in updates:
                    scored = update if isinstance(update, ScoredText) else None
            return [] if scored is None else [_token(token) for token in scored.tokens]
        except Exception as error:
            raise worded(self._runtime, error) from None

    async def models(self) -> list[dict[str, Any]]:
        """Every model with its state, and whether it fits on this machine."""
        try:
            return [summary.public() for summary in self._runtime.models()]
        except Exception as error:
            raise worded(self._runtime, error) from None

    def _stopper(self, asked: gr.Request | None) -> Stopper:
        return Stopper(self._runtime.visitors.of(asked))

    def _model(self, name: object) -> str:
        return optional_text("model", name) or self._runtime.default_model


def optional_text(name: str, value: object) -> str:
    """An argument that may be left out. Raises `InvalidParameter`."""
    if value is not None and not isinstance(value, str):
        raise InvalidParameter(name, value, Reason("expected.text"))
    return value or ""


def worded(runtime: Runtime, error: Exception) -> Any:
    """The error as Gradio sends it: one sentence; what we did not expect goes into the log."""
    if not isinstance(error, LlamaDemoError):
        LOG.error("an endpoint failed", exc_info=error)
    return gr.Error(runtime.messages().error(error), print_exception=False)


def _token(scored: ScoredToken) -> dict[str, Any]:
    top = [{"token": other.token, "id": other.id, "logprob": other.logprob} for other in scored.top]
    return {"token": scored.token, "id": scored.id, "logprob": scored.logprob, "top": top}


def add_endpoints(runtime: Runtime) -> None:
    """Adds the endpoints to the page that is being built."""
    endpoints = Endpoints(runtime)
    gr.api(endpoints.chat, api_name="chat", concurrency_limit=None)
    gr.api(endpoints.generate, api_name="generate", concurrency_limit=None)
    gr.api(endpoints.score, api_name="score", concurrency_limit=None)
    gr.api(endpoints.models, api_name="models", concurrency_limit=None)

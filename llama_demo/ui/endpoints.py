"""The named Gradio endpoints, thin over the runtime: `/chat` streams a reply, `/models` lists what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.errors import InvalidParameter, LlamaDemoError
from llama_demo.observe import LOG
from llama_demo.values import Reply, Sampling, turns_from

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_DEFAULTS = Sampling()


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
                raise InvalidParameter("message", message, "a text")
            if model is not None and not isinstance(model, str):
                raise InvalidParameter("model", model, "a text")
            updates = self._runtime.generation.chat(
                turns_from(history or [], message, system_prompt or ""),
                model=model or self._runtime.default_model,
                sampling=Sampling(
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=top_k,
                    repetition_penalty=repetition_penalty,
                    seed=seed,
                ),
            )
            async with aclosing(updates):
                async for update in updates:
                    yield update.text if isinstance(update, Reply) else ""
        except Exception as error:
            raise self._worded(error) from None

    async def models(self) -> list[dict[str, Any]]:
        """Every model with its state, and whether it fits on this machine."""
        try:
            return [summary.public() for summary in self._runtime.models()]
        except Exception as error:
            raise self._worded(error) from None

    def _worded(self, error: Exception) -> Any:
        if not isinstance(error, LlamaDemoError):
            LOG.error("an endpoint failed", exc_info=error)
        return gr.Error(self._runtime.messages().error(error), print_exception=False)


def add_endpoints(runtime: Runtime) -> None:
    """Adds the endpoints to the page that is being built."""
    endpoints = Endpoints(runtime)
    gr.api(endpoints.chat, api_name="chat", concurrency_limit=None)
    gr.api(endpoints.models, api_name="models", concurrency_limit=None)

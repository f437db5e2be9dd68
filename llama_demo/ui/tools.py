"""The tools that the page's MCP server offers: the endpoints once more, each as one call with one whole answer.

Gradio would offer every endpoint, and call those with a queue over a connection of its own: then it would be nobody who
asks, whatever key or password came with the call. Ours stand in no queue of Gradio's; the runtime's own line is theirs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from llama_demo.ui.classify_endpoints import ClassifyEndpoints
from llama_demo.ui.endpoints import Endpoints
from llama_demo.ui.patches import offer_over_mcp
from llama_demo.values import Sampling

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_DEFAULTS = Sampling()
_PREFIX = "tool_"

T = TypeVar("T")


class Tools:
    """What a program's language model reads of each is its docstring."""

    def __init__(self, runtime: Runtime) -> None:
        self._endpoints = Endpoints(runtime)
        self._classify = ClassifyEndpoints(runtime)

    async def chat(  # noqa: PLR0917 - a tool has as many as it has
        self,
        message: str,
        history: list[dict[str, Any]] | None = None,
        system_prompt: str = "",
        model: str = "",
        max_new_tokens: int = _DEFAULTS.max_new_tokens,
        temperature: float = _DEFAULTS.temperature,
        seed: int | None = None,
        asked: gr.Request | None = None,
    ) -> str:
        """Talk with a small open language model of the Llama family that runs on this server, and get its reply. It
        remembers nothing between calls: give the earlier turns as history.

        Parameters:
            message: what to say to the model
            history: the earlier turns, oldest first, each {"role": "user" or "assistant", "content": text}
            system_prompt: how the model should behave
            model: the name of a model on this server; empty for its default
            max_new_tokens: the longest reply, in tokens of about three quarters of an English word
            temperature: 0 for the likeliest reply; up to 5 for more variety
            seed: a whole number that repeats the same reply; none for a random one
        """
        return await _whole(
            self._endpoints.chat(
                message,
                history,
                model,
                system_prompt,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                asked=asked,
            )
        )

    async def generate(  # noqa: PLR0917 - as above
        self,
        prompt: str,
        model: str = "",
        max_new_tokens: int = _DEFAULTS.max_new_tokens,
        temperature: float = _DEFAULTS.temperature,
        stop: list[str] | None = None,
        seed: int | None = None,
        asked: gr.Request | None = None,
    ) -> str:
        """Let a language model go on with a raw text, without any conversation around it: the continuation alone comes
        back. Good for completing patterns, lists, code or stories, and for seeing how a base model writes.

        Parameters:
            prompt: the text to go on with, exactly as the model is to read it
            model: the name of a model on this server; empty for its default
            max_new_tokens: the longest continuation, in tokens
            temperature: 0 for the likeliest continuation; up to 5 for more variety
            stop: texts that end the continuation, which comes without them
            seed: a whole number that repeats the same continuation; none for a random one
        """
        texts = self._endpoints.generate(
            prompt,
            model,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop=stop,
            seed=seed,
            asked=asked,
        )
        return str(await _whole(texts))

    async def score(self, text: str, model: str = "", top_k: int = 3, asked: gr.Request | None = None) -> str:
        """See how likely a language model finds each token of a text: its natural log-probability after the tokens
        before it, and the likeliest alternatives there, as JSON. The first token has none.

        Parameters:
            text: the text to read
            model: the name of a model on this server; empty for its default
            top_k: how many alternatives for each token, up to 100
        """
        return _json(await self._endpoints.score(text, model, top_k, asked))

    async def classify(
        self,
        texts: list[str],
        labels: list[str] | None = None,
        classifier: str = "",
        model: str = "",
        asked: gr.Request | None = None,
    ) -> str:
        """Sort texts into classes: the likeliest label of each, with a probability for every label, as JSON. Give the
        labels, and nothing need be trained; or name a classifier that was trained on this server.

        Parameters:
            texts: what to classify, several at once
            labels: from 2 to 200 names of classes, in plain words, such as ["positive", "negative"]
            classifier: a trained classifier's name, instead of labels
            model: the name of a model on this server; empty for its default
        """
        return _json(await self._classify.classify(texts, classifier, labels, model, asked=asked))


async def _whole(values: AsyncIterator[T]) -> T | str:
    last: T | str = ""
    async for value in values:
        last = value
    return last


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def add_tools(runtime: Runtime) -> None:
    """Adds the tools to the page that is being built."""
    tools = Tools(runtime)
    for tool in (tools.chat, tools.generate, tools.score, tools.classify):
        name = _PREFIX + tool.__name__
        gr.api(tool, api_name=name, queue=False, concurrency_limit=None, api_visibility="undocumented")


def offer_tools(page: Any) -> None:
    """Has the launched `page` offer over MCP the tools, which it leaves out of its own API's page, and nothing else."""
    offer_over_mcp(page, _PREFIX)

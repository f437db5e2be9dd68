"""What a remote server says of itself: whether it has the model, and what it can do beyond OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import openai

from llama_demo.remote_errors import RemoteGarbled, RemoteLacksModel

if TYPE_CHECKING:
    from llama_demo.catalog import Entry

_WITH_EXTENSIONS = ("vllm", "sglang")
"""Whose servers take more than OpenAI's API has; their lists of models say who they are."""
_WITHOUT_LIST = (400, 404, 405, 501)
"""How a server answers that has no list of models, or one behind something that passes only questions on."""
_NAMED = 5
"""So many of the models that a server has are named where it lacks the one that is wanted."""


@dataclass(frozen=True, slots=True)
class Found:
    """`context_tokens` is 0 where nobody says."""

    context_tokens: int = 0
    has_extensions: bool = False
    counts_tokens: bool = False


async def find(client: openai.AsyncOpenAI, entry: Entry) -> Found:
    """Raises `RemoteLacksModel`, `RemoteGarbled`, and what the client raises."""
    try:
        listed = (await client.models.list()).data
    except openai.APIStatusError as error:
        if error.status_code not in _WITHOUT_LIST:
            raise
        return Found(entry.context_tokens)  # what it has shows when it is asked
    if not isinstance(listed, list):
        raise RemoteGarbled(entry.name)
    model = next((each for each in listed if each.id == entry.remote_model), None)
    if model is None:
        raise RemoteLacksModel(entry.name, entry.remote_model, tuple(str(each.id) for each in listed[:_NAMED]))
    context = getattr(model, "max_model_len", None)
    return Found(
        context_tokens=context if isinstance(context, int) else entry.context_tokens,
        has_extensions=model.owned_by in _WITH_EXTENSIONS,
        counts_tokens=await _can_count(client, entry),
    )


async def count(client: openai.AsyncOpenAI, entry: Entry, what: Mapping[str, object]) -> int:
    """The tokens of a `prompt` or of `messages`, by an endpoint that vLLM and SGLang have beside OpenAI's API.

    Raises `RemoteGarbled`, and what the client raises."""
    address = entry.base_url.rstrip("/").removesuffix("/v1") + "/tokenize"
    answer = await client.post(address, body={"model": entry.remote_model, **what}, cast_to=object)
    counted = answer.get("count") if isinstance(answer, dict) else None
    if not isinstance(counted, int):
        raise RemoteGarbled(entry.name)
    return counted


async def _can_count(client: openai.AsyncOpenAI, entry: Entry) -> bool:
    try:
        return await count(client, entry, {"prompt": "a"}) > 0
    except (openai.APIStatusError, RemoteGarbled):
        return False

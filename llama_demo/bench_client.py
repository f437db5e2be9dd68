"""Two ways to ask a running server for a reply and hear it grow: Gradio's queue, as a page does, and the OpenAI API.

Knows the wire, and nothing of time, visitors or tokens. It asks this machine alone, whatever address it is given.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from llama_demo.errors import InvalidParameter, NothingToMeasure
from llama_demo.reasons import Reason

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_GRADIO = "/gradio_api"


class RequestFailed(Exception):
    """One request got no whole reply; the message is the server's own, or says what came instead."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one visitor sends. `history` holds {role, content} entries; temperature is always 0.

    `session` is the visitor's, as an open page has one; a new one where it is empty.
    """

    message: str
    max_new_tokens: int
    history: tuple[Mapping[str, str], ...] = ()
    session: str = ""


class ReplyClient(Protocol):
    """A server that streams replies."""

    def stream(self, ask: Ask) -> AsyncIterator[str]:
        """The reply so far, each time it has changed. Raises `RequestFailed` and httpx's errors."""


def loopback(url: str) -> str:
    """`url` without a closing slash. Raises `InvalidParameter` unless it is an address of this machine: a load on
    someone else's server is an attack."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname in LOOPBACK and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.username is not None:
        raise InvalidParameter("url", url, Reason("expected.own_address"))
    return url.rstrip("/")


def new_http(timeout_seconds: float) -> httpx.AsyncClient:
    """As many connections as there are visitors, no proxy and no redirect: nothing leaves this machine."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=timeout_seconds, limits=limits, trust_env=False, follow_redirects=False)


class GradioClient:
    """The protocol of a Gradio page: join the queue with the values in order, then read the session's events."""

    def __init__(self, http: httpx.AsyncClient, url: str, fn_index: int, inputs: Sequence[tuple[str, Any]]) -> None:
        self._http = http
        self._url = url + _GRADIO
        self._fn_index = fn_index
        self._inputs = inputs

    @classmethod
    async def connect(cls, http: httpx.AsyncClient, url: str, model: str = "", endpoint: str = "chat") -> GradioClient:
        """Reads which values `endpoint` takes, by name, and in which order. Raises `NothingToMeasure`."""
        config = await _get_json(http, url, "/config")
        info = await _get_json(http, url, f"{_GRADIO}/info")
        try:
            dependency = next(found for found in config["dependencies"] if found["api_name"] == endpoint)
            kinds = {component["id"]: component["type"] for component in config["components"]}
            named = iter(info["named_endpoints"][f"/{endpoint}"]["parameters"])
            inputs = [_input(kinds[number], named, model) for number in dependency["inputs"]]
            return cls(http, url, dependency["id"], inputs)
        except (KeyError, TypeError, StopIteration):
            raise NothingToMeasure(url, f"it has no Gradio endpoint named /{endpoint}") from None

    async def stream(self, ask: Ask) -> AsyncIterator[str]:
        """See `ReplyClient.stream`."""
        session = ask.session or secrets.token_hex(8)
        given = {"message": ask.message, "history": list(ask.history), "temperature": 0.0}
        given |= {"max_new_tokens": ask.max_new_tokens, "new_tokens": ask.max_new_tokens}
        data = [given.get(name, default) for name, default in self._inputs]
        body = {"data": data, "fn_index": self._fn_index, "session_hash": session}
        joined = await self._http.post(f"{self._url}/queue/join", json=body)
        _check_status(joined, joined.content)
        async with self._http.stream("GET", f"{self._url}/queue/data?session_hash={session}") as response:
            _check_status(response, b"")
            async for text in _grown(response):
                yield text


class OpenAIClient:
    """The OpenAI API's streaming chat completions."""

    def __init__(self, http: httpx.AsyncClient, url: str, model: str) -> None:
        self._http = http
        self._url = url
        self._model = model

    @classmethod
    async def connect(cls, http: httpx.AsyncClient, url: str, model: str = "") -> OpenAIClient:
        """Takes the first model that the server lists where `model` is empty. Raises `NothingToMeasure`."""
        if not model:
            listed = await _get_json(http, url, "/v1/models")
            try:
                model = listed["data"][0]["id"]
            except (KeyError, IndexError, TypeError):
                raise NothingToMeasure(url, "it lists no model") from None
        return cls(http, url, model)

    async def stream(self, ask: Ask) -> AsyncIterator[str]:
        """See `ReplyClient.stream`."""
        messages = [*ask.history, {"role": "user", "content": ask.message}]
        body = {"model": self._model, "messages": messages, "max_tokens": ask.max_new_tokens, "temperature": 0.0}
        body["stream"], text = True, ""
        async with self._http.stream(
            "POST", f"{self._url}/v1/chat/completions", json=body | {"stream": True}
        ) as answer:
            _check_status(answer, await answer.aread() if answer.status_code != httpx.codes.OK else b"")
            async for data in events(answer.aiter_bytes()):
                if data == b"[DONE]":
                    return
                piece = _delta(json.loads(data))
                if piece:
                    text += piece
                    yield text
        raise RequestFailed("the stream ended before the reply did")


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event, however the bytes were cut on their way."""
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            lines = (line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:"))
            data = b"\n".join(lines)
            if data:
                yield data


async def _grown(response: httpx.Response) -> AsyncIterator[str]:
    text: str | None = None
    complete = False
    async for data in events(response.aiter_bytes()):
        message = json.loads(data)
        kind = message.get("msg")
        if kind == "process_generating" and message.get("success"):
            value = _first(message)
            grown = _text(value) if text is None else edited(text, value)
            if grown != text:
                text = grown
                yield grown
        elif kind == "process_completed":
            complete = True
            if not message.get("success"):
                raise RequestFailed(str(message["output"].get("error") or "the server gave no reason"))
            whole = _text(_first(message))
            if text is None:
                yield whole
            elif whole != text:
                raise RequestFailed("the pieces of the stream do not add up to the whole reply")
        elif kind in ("unexpected_error", "server_stopped"):
            raise RequestFailed(str(message.get("message") or kind))
    if not complete:
        raise RequestFailed("the stream ended before the reply did")


def edited(text: str, edits: Any) -> str:
    """`text` after Gradio's `edits`, a list of [action, path, value]. Raises `RequestFailed` for edits of no text."""
    for action, path, value in edits:
        if path or action not in ("append", "replace") or not isinstance(value, str):
            raise RequestFailed("the endpoint streams something that is not text")
        text = text + value if action == "append" else value
    return text


def _first(message: Mapping[str, Any]) -> Any:
    data = message["output"].get("data")
    if not data:
        raise RequestFailed("the endpoint gives no value")
    return data[0]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RequestFailed("the endpoint gives something that is not text")
    return value


def _input(kind: str, named: Any, model: str) -> tuple[str, Any]:
    """Name and default of one value; what the page keeps for itself (`state`) has no name and is sent as nothing."""
    if kind == "state":
        return "", None
    parameter = next(named)
    name = parameter["parameter_name"]
    return name, model if name == "model" and model else parameter.get("parameter_default")


def _delta(chunk: Mapping[str, Any]) -> str:
    if "error" in chunk:
        raise RequestFailed(str(chunk["error"]))
    choices = chunk.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


async def _get_json(http: httpx.AsyncClient, url: str, path: str) -> Any:
    try:
        answer = await http.get(url + path)
        _check_status(answer, answer.content)
        return answer.json()
    except httpx.HTTPError:
        raise NothingToMeasure(url, "nothing answers there") from None
    except (RequestFailed, ValueError):
        raise NothingToMeasure(url, f"what answers there has no {path}") from None


def _check_status(answer: httpx.Response, content: bytes) -> None:
    if answer.status_code != httpx.codes.OK:
        raise RequestFailed(f"HTTP {answer.status_code} {content[:200].decode('utf-8', 'replace')}".rstrip())

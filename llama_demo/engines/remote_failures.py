"""What the client raises, as errors of ours: which of them it is decides what is told, and what is tried again."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

import httpx2
import openai

from llama_demo.errors import LlamaDemoError, Unsupported
from llama_demo.remote_errors import (
    RemoteBusy,
    RemoteDown,
    RemoteFailed,
    RemoteGarbled,
    RemoteLocked,
    RemoteLost,
    RemoteRefused,
    RemoteSilent,
)

_UNREACHED = (httpx2.ConnectError, httpx2.ConnectTimeout)
_USUAL_WAIT_SECONDS = 5.0
"""Where a server asks to wait and does not say how long."""
_LONGEST_WAIT_SECONDS = 600.0
_MOST_CHARACTERS = 300


def failure(error: Exception, model: str, *, token: str, variable: str, waited_seconds: float) -> LlamaDemoError:
    """`error` as one of ours. What the server itself says is passed on only of a request that it refused, without the
    token."""
    if isinstance(error, LlamaDemoError):
        return error
    if isinstance(error, openai.APIConnectionError):
        return _connection(error, model, waited_seconds)
    if isinstance(error, openai.APIStatusError):
        return _status(error, model, token, variable)
    if isinstance(error, openai.APIResponseValidationError) or not isinstance(error, openai.APIError):
        return RemoteGarbled(model)
    return RemoteFailed(model, 0)


def _connection(error: openai.APIConnectionError, model: str, waited_seconds: float) -> LlamaDemoError:
    if isinstance(error.__cause__, _UNREACHED):
        return RemoteDown(model)
    if isinstance(error, openai.APITimeoutError):
        return RemoteSilent(model, waited_seconds)
    return RemoteLost(model)


def _status(error: openai.APIStatusError, model: str, token: str, variable: str) -> LlamaDemoError:
    status = error.status_code
    if status in (401, 403):
        return RemoteLocked(model, variable or "token_variable")
    if status == 429 or (status == 503 and "retry-after" in error.response.headers):
        return RemoteBusy(model, retry_after(error.response.headers))
    said = _said(error)
    if status == 404 and not said:
        return Unsupported("this way of writing: its server has no such endpoint", model)
    if status in (400, 404, 413, 422):
        said = said or f"HTTP {status}"
        return RemoteRefused(model, said.replace(token, "…") if token else said)
    return RemoteFailed(model, status)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from now; a number or a date, as HTTP has it."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            seconds = _USUAL_WAIT_SECONDS
    return min(_LONGEST_WAIT_SECONDS, max(0.0, seconds)) if math.isfinite(seconds) else _USUAL_WAIT_SECONDS


def _said(error: openai.APIStatusError) -> str:
    """In OpenAI's own form of an error; empty where it has another."""
    text = error.body.get("message") if isinstance(error.body, dict) else None
    return text[:_MOST_CHARACTERS] if isinstance(text, str) else ""

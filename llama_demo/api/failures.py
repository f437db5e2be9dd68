"""Errors as the OpenAI API words them: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from llama_demo.api.fields import UNSUPPORTED
from llama_demo.api_errors import (
    MissingField,
    NotAuthorised,
    UnknownField,
    UnknownPath,
    UnreadableBody,
    UnsupportedParameter,
    WrongMethod,
)
from llama_demo.errors import Busy, InvalidInput, InvalidParameter, LlamaDemoError, PromptTooLong, UnknownModel
from llama_demo.observe import LOG
from llama_demo.reasons import Reason
from llama_demo.remote_errors import RemoteBusy
from llama_demo.visitor_errors import TooManyRequests

if TYPE_CHECKING:
    from llama_demo.messages import Messages

_KINDS = ("str", "int", "bool", "float")
_EXPECTED = {
    "prompt": Reason("expected.prompts"),
    "content": Reason("expected.content"),
    "stop": Reason("expected.stop"),
}
"""Of fields that may be of several kinds."""

_STATUS: dict[type[LlamaDemoError], tuple[int, str | None]] = {
    NotAuthorised: (401, "invalid_api_key"),
    UnknownPath: (404, None),
    UnknownModel: (404, "model_not_found"),
    WrongMethod: (405, None),
    PromptTooLong: (400, "context_length_exceeded"),
    UnsupportedParameter: (400, "unsupported_parameter"),
    UnknownField: (400, "unknown_parameter"),
    MissingField: (400, "missing_required_parameter"),
    InvalidParameter: (400, "invalid_value"),
    Busy: (429, "rate_limit_exceeded"),
    TooManyRequests: (429, "rate_limit_exceeded"),
    RemoteBusy: (429, "rate_limit_exceeded"),
}
"""Status and code of an error, by its type."""


class ErrorDetail(BaseModel):
    """`message` says what happened, then what to do; `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every answer that is not 2xx says, and a stream's last event where it fails."""

    error: ErrorDetail


def body(error: Exception, words: Messages) -> dict[str, Any]:
    """`error` in the API's shape. What we did not expect goes into the log, and its own text nowhere else."""
    status, code = _status(error)
    if status == 500:
        LOG.error("an API request failed", exc_info=error)
    kind = "invalid_request_error" if status < 429 else "rate_limit_error" if status == 429 else "server_error"
    if isinstance(error, UnsupportedParameter):
        error = UnsupportedParameter(error.name, words(error.problem))
    detail = ErrorDetail(message=words.error(error), type=kind, param=_param(error), code=code)
    return ErrorBody(error=detail).model_dump()


def response(error: Exception, words: Messages) -> JSONResponse:
    """The whole answer to a request that failed."""
    status, _ = _status(error)
    headers = {}
    if isinstance(error, NotAuthorised):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(seconds := getattr(error, "seconds", None), (int, float)):
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return JSONResponse(body(error, words), status_code=status, headers=headers)


def from_validation(problems: Sequence[Any]) -> LlamaDemoError:
    """The first of pydantic's complaints as an error of ours; a field that may be of several kinds has one of each."""
    problem = next((one for one in problems if one["type"] == UNSUPPORTED), problems[0])
    kind, place = problem["type"], list(takewhile(_is_place, problem["loc"][1:]))
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        return UnknownField(name)
    if kind == UNSUPPORTED:
        return UnsupportedParameter(name, problem["ctx"]["problem"])
    if not name or kind == "json_invalid":
        return UnreadableBody()
    if kind == "missing":
        return MissingField(name)
    if len(place) < len(problem["loc"]) - 1 and (expected := _EXPECTED.get(str(place[-1]))):
        return InvalidParameter(name, _value(problem), expected)
    said = Reason("expected.said", said=problem["msg"].removeprefix("Input should be "))
    return InvalidParameter(name, _value(problem), Reason("expected.one_or_more") if kind == "too_short" else said)


def _is_place(part: str | int) -> bool:
    """Whether it leads to a field, and does not name one of the kinds that the field may be of."""
    return isinstance(part, int) or (part.isidentifier() and part not in _KINDS)


def _value(problem: Any) -> object:
    """What was sent, without its content where that is a whole structure."""
    value = problem.get("input")
    if value == []:
        return "empty"
    return type(value).__name__ if isinstance(value, (list, dict)) else value


def _status(error: Exception) -> tuple[int, str | None]:
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    if isinstance(error, InvalidInput):
        return 400, None
    return (503 if isinstance(error, LlamaDemoError) else 500), None


def _param(error: Exception) -> str | None:
    if isinstance(error, UnknownModel):
        return "model"
    if isinstance(error, (InvalidParameter, UnknownField, MissingField, UnsupportedParameter)):
        return error.name
    return None

"""The OpenAPI description, where it says more or other than FastAPI does by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from llama_demo.api.events import DONE
from llama_demo.api.failures import ErrorBody

_MEANING = {
    400: "Something in the request is wrong, or cannot be done here: `param` names it.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    413: "The body is too long.",
    429: "Too much is asked at once: `Retry-After` says in how many seconds to try again.",
    503: "Not now: the model cannot be loaded, has stopped, or the server is shutting down.",
}
_RETRY = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an endpoint answers besides 200."""
    return {
        status: {"model": ErrorBody, "description": _MEANING[status]} | ({"headers": _RETRY} if status == 429 else {})
        for status in statuses
    }


def streamed(chunk: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What 200 is with `stream`: the schema is that of each event's data."""
    piece = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/components/schemas/{chunk.__name__}"},
    }
    data = {"anyOf": [piece, {"type": "string", "const": DONE}]}
    schema = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    text = "The whole answer; or with `stream` server-sent events, the data of each as below, the last one `[DONE]`."
    return {200: {"description": text, "content": {"text/event-stream": {"schema": schema}}}}


def describe(app: FastAPI, *shapes: type[BaseModel]) -> None:
    """Adds the shapes that no endpoint names, and takes out FastAPI's own 422: ours is 400."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = made()
            for path in description["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            schemas = description["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for shape in shapes:
                schema = shape.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
                schemas |= schema.pop("$defs", {}) | {shape.__name__: schema}
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]

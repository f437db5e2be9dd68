"""HTTP on the page's own port: routes that Gradio's server puts before its own. The OpenAI API is in `v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route

from llama_demo.api.v1 import build
from llama_demo.messages import preferred

if TYPE_CHECKING:
    from llama_demo.catalog import Entry
    from llama_demo.runtime import Runtime


def routes(runtime: Runtime) -> list[BaseRoute]:
    """`GET /health`: 200 whenever a request would be accepted, else 503 with the reason; `remote` has the states of the
    models that other servers run. The OpenAI API under `/v1`."""

    async def health(request: Request) -> JSONResponse:
        refusal = runtime.refusal()
        status = runtime.status(runtime.default_model)
        state: dict[str, object] = {"model": runtime.default_model, "state": str(status.state)}
        if remote := {entry.name: str(runtime.status(entry.name).state) for entry in _remote(runtime)}:
            state["remote"] = remote
        if refusal is None:
            return JSONResponse({"status": "ok", **state})
        words = runtime.messages(preferred(request.headers.get("accept-language", "")))
        return JSONResponse({"status": "unavailable", "reason": words.error(refusal), **state}, status_code=503)

    return [Route("/health", health, methods=["GET"]), Mount("/v1", build(runtime))]


def _remote(runtime: Runtime) -> list[Entry]:
    """What visitors may choose and other servers run."""
    return [entry for entry in runtime.catalog.entries if entry.format == "remote"]

"""`GET /metrics`, for the owner alone: who asks how much, and when, is nobody else's business."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from llama_demo.errors import LlamaDemoError
from llama_demo.metrics import CONTENT_TYPE
from llama_demo.visitor_errors import OwnerOnly, TooManyAttempts
from llama_demo.visitors import address_of

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_BEARER = "bearer "


def metrics_route(runtime: Runtime) -> Route:
    """Prometheus has no cookie: it gives the owner's password as a bearer token."""

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if given[: len(_BEARER)].lower() == _BEARER and runtime.visitors.can_unlock:
            runtime.visitors.unlock(given[len(_BEARER) :], address_of(request))
        elif not runtime.visitors.of(request).is_owner:
            raise OwnerOnly()

    async def read(request: Request) -> Response:
        try:
            check(request)
        except LlamaDemoError as error:
            status = 429 if isinstance(error, TooManyAttempts) else 403
            return PlainTextResponse(runtime.messages().error(error), status)
        return Response(runtime.metrics.text(), media_type=CONTENT_TYPE)

    return Route("/metrics", read, methods=["GET"])

"""`/owner`: the owner gives the password and takes a cookie for it, or gives it back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llama_demo.api.cookies import cookie
from llama_demo.visitor_errors import TooManyAttempts, WrongPassword
from llama_demo.visitors import OWNER_COOKIE, address_of

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime


def owner_routes(runtime: Runtime) -> list[Route]:
    """`GET` says whether this browser is the owner's, `POST` takes `{"password": ...}`, `DELETE` locks again."""

    async def read(request: Request) -> Response:
        return JSONResponse({"owner": runtime.visitors.of(request).is_owner})

    async def unlock(request: Request) -> Response:
        try:
            given = json.loads(await request.body())
            password = given.get("password") if isinstance(given, dict) else None
        except (ValueError, RecursionError):
            password = None
        words = runtime.messages(request.headers.get("accept-language", "")[:2])
        try:
            value = runtime.visitors.unlock(password if isinstance(password, str) else "", address_of(request))
        except WrongPassword as error:
            return JSONResponse({"detail": words.error(error)}, 403)
        except TooManyAttempts as error:
            return JSONResponse({"detail": words.error(error)}, 429, {"retry-after": str(round(error.seconds) + 1)})
        return _with_cookie(request, value, None)

    async def lock(request: Request) -> Response:
        return _with_cookie(request, "", 0)

    def _with_cookie(request: Request, value: str, max_age_seconds: int | None) -> Response:
        secure = request.url.scheme == "https"
        made = cookie(OWNER_COOKIE, value, max_age_seconds, framed=runtime.settings.space, secure=secure)
        return Response(status_code=204, headers={"set-cookie": made})

    return [
        Route("/owner", read, methods=["GET"]),
        Route("/owner", unlock, methods=["POST"]),
        Route("/owner", lock, methods=["DELETE"]),
    ]

"""`/login`: on a Space its owner signs in at the Hub, and takes the same cookie as for the password.

In a page of its own: the Hub does not let itself be framed.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from llama_demo.api.cookies import cookie
from llama_demo.errors import HubUnavailable, LlamaDemoError
from llama_demo.hub_errors import TokenInvalid
from llama_demo.hub_identity import CALLBACK, identify, where_to_ask
from llama_demo.messages import preferred
from llama_demo.observe import LOG, one_line
from llama_demo.visitor_errors import NotTheOwner, SignInBroken
from llama_demo.visitors import OWNER_COOKIE

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

PATH = "/login/huggingface"
STATE_COOKIE = "llama_demo_sign_in"
"""Drawn for one sign-in: nobody else's answer from the Hub is taken for it."""
STATE_SECONDS = 600
SEE_OTHER = 303


def sign_in_routes(runtime: Runtime) -> list[Route]:
    """None where the Space was given no application."""
    application = runtime.settings.sign_in
    if application is None:
        return []

    async def begin(_: Request) -> Response:
        state = secrets.token_hex(16)
        answer = RedirectResponse(where_to_ask(application, state), SEE_OTHER)
        answer.headers["set-cookie"] = cookie(STATE_COOKIE, state, STATE_SECONDS, framed=False, secure=True)
        return answer

    async def end(request: Request) -> Response:
        given, drawn = request.query_params.get("state", ""), request.cookies.get(STATE_COOKIE, "")
        words = runtime.messages(preferred(request.headers.get("accept-language", "")))
        try:
            if not drawn or not hmac.compare_digest(given.encode(), drawn.encode()):
                raise SignInBroken()
            who = await asyncio.to_thread(identify, application, request.query_params.get("code", ""))
            if not who.name or who.name != application.owner:
                raise NotTheOwner(who.name, application.owner)
        except LlamaDemoError as error:
            LOG.info("sign-in refused: %s", one_line(words.error(error)))
            return PlainTextResponse(words.error(error), 403)
        if not os.environ.get("HF_TOKEN"):
            with suppress(HubUnavailable, TokenInvalid):
                await asyncio.to_thread(runtime.management.sign_in, who.token)
        answer = RedirectResponse("/", SEE_OTHER)
        value = runtime.visitors.owner_cookie()
        answer.headers["set-cookie"] = cookie(OWNER_COOKIE, value, None, framed=True, secure=True)
        return answer

    return [Route(PATH, begin, methods=["GET"]), Route(CALLBACK, end, methods=["GET"])]

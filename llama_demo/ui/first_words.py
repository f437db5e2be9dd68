"""What the page says before anything of it runs: to a browser without scripts, or one too old for all of the page.

Gradio's own way to add to the page's head is taken by its script, so it comes too late for both.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_demo.messages import languages

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_BODY = re.compile(rb"<body\b[^>]*>")


def first_words(runtime: Runtime) -> Middleware:
    """As `FastAPI` takes it, behind everything that may hold the page back or compress it."""
    return Middleware(FirstWords, _written(runtime))


class FirstWords:
    """ASGI middleware: puts them at the beginning of the page's body."""

    def __init__(self, app: ASGIApp, words: str) -> None:
        self._app = app
        self._words = words.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        begun: list[Message] = []
        page = bytearray()

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            page.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            whole = _BODY.sub(lambda found: found[0] + self._words, bytes(page), count=1)
            headers = MutableHeaders(scope=begun[0])
            if scope["method"] == "GET":
                headers["content-length"] = str(len(whole))
            await send(begun[0])
            await send({**message, "body": whole})

        await self._app(scope, receive, add)


def _written(runtime: Runtime) -> str:
    """In the browser's language; in all of them where no script can ask for it."""
    tables = {language: runtime.messages(language) for language in languages()}
    template = (resources.files(__package__) / "first_words.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        too_old=json.dumps({language: words("page.too_old") for language, words in tables.items()}),
        no_script="<br>".join(words("page.no_script") for words in tables.values()),
    )

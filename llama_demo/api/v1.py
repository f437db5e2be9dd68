"""The OpenAI-compatible API as an app of its own, which describes itself at `/v1/openapi.json`.

It reads requests, and hands them to generation; what goes wrong becomes the API's error shape here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llama_demo import __version__
from llama_demo.api import failures
from llama_demo.api.answers import ChatAnswer, ChatChunk, CompletionAnswer, Model, ModelList
from llama_demo.api.chat import Chat
from llama_demo.api.completions import Completions
from llama_demo.api.description import describe, errors, streamed
from llama_demo.api.events import DONE, event, gone, stream
from llama_demo.api.generating import Answers, answer, merged
from llama_demo.api.requests import ChatRequest, CompletionsRequest
from llama_demo.api.shaping import Told, usage
from llama_demo.api_errors import UnknownPath, UnreadableBody, UnsupportedParameter, WrongMethod
from llama_demo.errors import LlamaDemoError

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime


class V1:
    """The endpoints. `started` stands for when the models were made, which nobody knows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._started = int(time.time())
        self._words = runtime.messages()
        profile = "reproducible" if runtime.settings.reproducible else "fast"
        self._fingerprint = f"llama-demo-{__version__}-{profile}"

    async def models(self) -> ModelList:
        """The models that may be asked, the default first."""
        names = [summary.name for summary in self._runtime.models() if summary.fits]
        names.sort(key=lambda name: name != self._runtime.default_model)
        return ModelList(data=[self._model(name) for name in names])

    async def model(self, name: str) -> Model:
        """One model."""
        return self._model(self._runtime.catalog.find(name).name)

    async def chat(self, asked: ChatRequest, request: Request) -> Any:
        """The next turn of a conversation.

        A conversation that is too long is refused, never cut; a length above what this server gives is cut to that, and
        the answer then ends with `length`.
        """
        return await self._answer(asked, Chat(asked, self._runtime.limits.max_new_tokens), request)

    async def completions(self, asked: CompletionsRequest, request: Request) -> Any:
        """The continuation of one or several texts, which are taken raw: no template is around them.

        With `echo` and `logprobs` the prompt's own tokens are scored; `max_tokens` 0 then writes nothing.
        """
        return await self._answer(asked, Completions(asked), request)

    def _model(self, name: str) -> Model:
        owner = self._runtime.catalog.find(name).repo.partition("/")[0]
        state = str(self._runtime.status(name).state)
        return Model(id=name, created=self._started, owned_by=owner or "local", state=state)

    async def _answer(
        self, asked: ChatRequest | CompletionsRequest, wanted: Chat | Completions, request: Request
    ) -> Any:
        """The whole answer, a stream, or what went wrong."""
        try:
            return await self._generate(asked, wanted, request)
        except Exception as error:
            return failures.response(error, self._words)

    async def _generate(
        self, asked: ChatRequest | CompletionsRequest, wanted: Chat | Completions, request: Request
    ) -> Any:
        if asked.stream_options is not None and not asked.stream:
            raise UnsupportedParameter("stream_options", "api.needs_stream")
        model = asked.model or self._runtime.default_model
        head = {
            "id": wanted.prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": self._runtime.catalog.find(model).name,
            "system_fingerprint": self._fingerprint,
        }
        answers = merged([answer(self._runtime, ask, model, self._runtime.visitors.of(request)) for ask in wanted.asks])
        if asked.stream:
            chunks = self._chunks(wanted, answers, head, includes_usage=asked.includes_usage)
            return await stream(request, chunks, self._failed)
        found: list[Answers | None] = [None] * len(wanted.asks)
        async with aclosing(answers):
            async for number, update in answers:
                found[number] = update
                if await request.is_disconnected():
                    return gone()
        return wanted.whole([one for one in found if one is not None], head)

    def _failed(self, error: Exception) -> bytes:
        """The last event of a stream that failed."""
        return event(json.dumps(failures.body(error, self._words)))

    async def _chunks(
        self,
        wanted: Chat | Completions,
        answers: AsyncGenerator[tuple[int, Answers | None], None],
        head: dict[str, object],
        *,
        includes_usage: bool,
    ) -> AsyncGenerator[bytes, None]:
        """A stream's events; an empty one while there is nothing to say."""

        def written(**data: object) -> bytes:
            chunk = wanted.chunk(**head, **data)  # type: ignore[arg-type]
            return event(chunk.model_dump_json(exclude=set() if includes_usage else {"usage"}))

        told, found = Told(), [Answers("", 0, 0, (), finished=False)] * len(wanted.asks)
        async with aclosing(answers):
            async for number, update in answers:
                if update is None:
                    yield b""
                    continue
                found[number] = update
                for new in told.news(number * wanted.asks[number].request.n, update):
                    for choice in wanted.pieces(new):
                        yield written(choices=[choice])
        if includes_usage:
            yield written(choices=[], usage=usage(found))
        yield event(DONE)


def build(runtime: Runtime) -> FastAPI:
    """The app, to be mounted at `/v1`."""
    endpoints = V1(runtime)
    app = FastAPI(
        title="llama-demo", version=__version__, docs_url=None, redoc_url=None, default_response_class=JSONResponse
    )
    app.get("/models", responses=errors(401))(endpoints.models)
    app.get("/models/{name:path}", responses=errors(401, 404))(endpoints.model)
    app.post(
        "/chat/completions",
        response_model=ChatAnswer,
        responses=errors(400, 401, 404, 413, 429, 503) | streamed(ChatChunk),
    )(endpoints.chat)
    app.post(
        "/completions",
        response_model=CompletionAnswer,
        responses=errors(400, 401, 404, 413, 429, 503) | streamed(CompletionAnswer),
    )(endpoints.completions)
    describe(app, ChatChunk)
    _handle_errors(app, runtime)
    return app


def _handle_errors(app: FastAPI, runtime: Runtime) -> None:
    words = runtime.messages()

    async def failed(_: Request, error: Exception) -> Response:
        return failures.response(error, words)

    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return failures.response(failures.from_validation(error.errors()), words)

    async def refused(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        known = {
            404: UnknownPath(path),
            405: WrongMethod(request.method, path),
        }
        return failures.response(known.get(error.status_code, UnreadableBody()), words)

    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(HTTPException)(refused)
    app.exception_handler(LlamaDemoError)(failed)

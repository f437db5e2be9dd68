"""An engine that says what it was told to, for tests of what stands above engines. It has no model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.catalog import EMBEDDED
from llama_demo.engines import Abilities
from llama_demo.engines.stream import TokenStream
from llama_demo.errors import UnknownModel
from llama_demo.generation import Generation
from llama_demo.limits import Admission, Limits
from llama_demo.loading import LoadedModel
from llama_demo.metrics import Metrics
from llama_demo.registry import Plan, Registry
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import (
    ChatUpdate,
    Completion,
    CompletionRequest,
    CompletionUpdate,
    Reply,
    Sampling,
    ScoredText,
    Token,
    Turn,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_demo.values import Scores

ASK = (Turn("user", "Where do the boats go?"),)
MODEL = EMBEDDED.name


@dataclass
class Request:
    """What the engine was asked, and the stream that the test feeds."""

    ids: list[int]
    sampling: Sampling
    stream: TokenStream = field(init=False)
    cancelled: bool = False


class ScriptedEngine:
    """Feeds `reply` to every request at once; without one the test feeds each request's stream itself."""

    abilities = Abilities(generate=True, score=False, embed=False)

    def __init__(self, reply: Sequence[int] | None = None, context_tokens: int = 256) -> None:
        self.context_tokens = context_tokens
        self.resident_bytes = 1
        self.healthy = True
        self.requests: list[Request] = []
        self.arrived = threading.Semaphore(0)
        self.on_score: Callable[[Sequence[int], int], Scores] = _not_scripted
        self.reply = reply

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        request = Request(list(ids), sampling)

        def cancel() -> None:
            request.cancelled = True
            request.stream.finish("cancelled")

        request.stream = TokenStream(cancel)
        self.requests.append(request)
        if self.reply is not None:
            made = list(self.reply)[: sampling.max_new_tokens]
            request.stream.put([Token(token, -1.0) for token in made])
            request.stream.finish("stop" if len(made) == len(self.reply) else "length")
        self.arrived.release()
        return request.stream

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        return self.on_score(ids, top_k)

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        raise AssertionError("not scripted")

    def close(self) -> None:
        self.healthy = False


def loaded(engine: Any, tokenizer_folder: Path) -> LoadedModel:
    """`engine` as the registry would hand it out, with the tokenizer of `tokenizer_folder`."""
    return LoadedModel(EMBEDDED, engine, Tokenizer.load(tokenizer_folder))


def _not_scripted(ids: Sequence[int], top_k: int) -> Scores:
    raise AssertionError("not scripted")


class World:
    """A generation service over one model, scripted unless another engine is given."""

    def __init__(self, folder: Path, engine: Any, *, concurrent: int = 4, queue: int = 4, **admission: Any) -> None:
        self.engine = engine
        self.tokenizer = Tokenizer.load(folder)
        self.load: Callable[[], LoadedModel] = lambda: loaded(engine, folder)
        self.admission = Admission(concurrent, queue, **admission)
        self.registry: Registry[LoadedModel] = Registry(
            budgets={"CPU": 10}, plan=_plan, load=lambda *_: self.load(), idle_seconds=None, wait_seconds=5
        )
        limits = Limits(message_characters=2_000, max_new_tokens=100, context_tokens=engine.context_tokens)
        self.metrics = Metrics()
        self.generation = Generation(self.registry, limits, self.admission, metrics=self.metrics)

    def chat(self, turns: tuple[Turn, ...] = ASK, **options: Any) -> AsyncGenerator[ChatUpdate, None]:
        options.setdefault("sampling", Sampling(temperature=0.0))
        options.setdefault("model", MODEL)
        return self.generation.chat(turns, **options)

    def all(self, turns: tuple[Turn, ...] = ASK, **options: Any) -> list[ChatUpdate]:
        async def read() -> list[ChatUpdate]:
            return [update async for update in self.chat(turns, **options)]

        return asyncio.run(read())

    def reply(self, turns: tuple[Turn, ...] = ASK, **options: Any) -> Reply:
        last = self.all(turns, **options)[-1]
        assert isinstance(last, Reply)
        return last

    def complete(self, prompt: str | tuple[int, ...], **options: Any) -> AsyncGenerator[CompletionUpdate, None]:
        options.setdefault("sampling", Sampling(temperature=0.0))
        model, stopper = options.pop("model", MODEL), options.pop("stopper", None)
        return self.generation.complete(CompletionRequest(prompt, **options), model=model, stopper=stopper)

    def completion(self, prompt: str | tuple[int, ...], **options: Any) -> Completion:
        """The last update."""

        async def read() -> CompletionUpdate:
            return [update async for update in self.complete(prompt, **options)][-1]

        last = asyncio.run(read())
        assert isinstance(last, Completion)
        return last

    def scored(self, source: Any, top_k: Any = 3) -> ScoredText:
        async def read() -> object:
            return [update async for update in self.generation.score(source, model=MODEL, top_k=top_k)][-1]

        last = asyncio.run(read())
        assert isinstance(last, ScoredText)
        return last


def worlds(folder: Path) -> Iterator[Callable[..., World]]:
    """Gives a function that makes worlds whose engine replies with a text, or as the test feeds it; ends them all."""
    made: list[World] = []

    def world(reply: str | None = "To the harbour.", **options: Any) -> World:
        tokenizer = Tokenizer.load(folder)
        engine = ScriptedEngine(None if reply is None else tokenizer.encode(reply), options.pop("context_tokens", 256))
        made.append(World(folder, engine, **options))
        return made[-1]

    yield world
    for one in made:
        one.registry.close()


def _plan(name: str) -> Plan:
    if name != MODEL:
        raise UnknownModel(name, MODEL)
    return Plan("CPU", 1)

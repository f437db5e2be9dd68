"""An engine that says what it was told to, for tests of what stands above engines. It has no model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.catalog import EMBEDDED
from llama_demo.engines import Abilities
from llama_demo.engines.stream import TokenStream
from llama_demo.loading import LoadedModel
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import Sampling, Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_demo.values import Scores


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
        self._reply = reply

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        request = Request(list(ids), sampling)

        def cancel() -> None:
            request.cancelled = True
            request.stream.finish("cancelled")

        request.stream = TokenStream(cancel)
        self.requests.append(request)
        if self._reply is not None:
            made = list(self._reply)[: sampling.max_new_tokens]
            request.stream.put([Token(token, -1.0) for token in made])
            request.stream.finish("stop" if len(made) == len(self._reply) else "length")
        self.arrived.release()
        return request.stream

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        raise AssertionError("not scripted")

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        raise AssertionError("not scripted")

    def close(self) -> None:
        self.healthy = False


def loaded(engine: Any, tokenizer_folder: Path) -> LoadedModel:
    """`engine` as the registry would hand it out, with the tokenizer of `tokenizer_folder`."""
    return LoadedModel(EMBEDDED, engine, Tokenizer.load(tokenizer_folder))

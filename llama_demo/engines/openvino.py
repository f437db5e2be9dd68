"""Generation from a GGUF file on the CPU by OpenVINO's continuous batching, in a process of its own.

This is the parent's side: requests out, tokens in, no model. Scores and features come from `openvino_analysis`.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llama_demo.api_errors import UnsupportedParameter
from llama_demo.checkpoints.gguf import GGUFHeader, read_header
from llama_demo.engines import Abilities
from llama_demo.engines.ids import check_ids
from llama_demo.engines.openvino_messages import (
    BLOCK_TOKENS,
    Add,
    Cancel,
    Cancelled,
    Load,
    Loaded,
    Progress,
    Refused,
    Step,
)
from llama_demo.engines.stream import TokenStream
from llama_demo.engines.worker import Worker
from llama_demo.errors import Closing, DoesNotFit, EngineCrashed, PromptTooLong, Unsupported
from llama_demo.values import SEED_LIMIT, Sampling, Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_demo.values import Scores

_LOG = logging.getLogger(__name__)

_LARGEST_MIN_P = 1.0 - 2.0**-24
"""OpenVINO refuses 1.0 itself; no token but the likeliest is as likely as this share of it."""
_LEAST_TEMPERATURE = 1e-6
"""Below this, logits in 32 bits have nothing left to draw by; much below, OpenVINO divides them beyond all numbers."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counted since the start, but for `active_requests` and `cache_used` (0 to 1, of requests in flight)."""

    active_requests: int
    steps: int
    tokens: int
    cache_used: float


def kv_block_bytes(header: GGUFHeader, *, reproducible: bool) -> int:
    """One block of the KV cache, of all layers.

    Reproducible: 4 bytes a number. Else one byte, and a scale and a zero point of 4 bytes each for every channel of a
    block's keys and for every token's values.
    """
    numbers = BLOCK_TOKENS * header.head_dim
    one_head = 8 * numbers if reproducible else 2 * numbers + 8 * header.head_dim + 8 * BLOCK_TOKENS
    return header.block_count * header.head_count_kv * one_head


class OpenVINOEngine:
    """`engines.Engine` without `score` and `embed`.

    Raises `BadCheckpoint`, `DoesNotFit` where `cache_bytes` are too few for one full context, and `MemoryError`.
    """

    abilities = Abilities(generate=True, score=False, embed=False)

    def __init__(
        self,
        model_path: Path,
        *,
        name: str,
        eos_ids: Collection[int],
        context_tokens: int,
        cache_bytes: int,
        reproducible: bool,
    ) -> None:
        header = read_header(model_path)
        block_bytes = kv_block_bytes(header, reproducible=reproducible)
        blocks, needed = cache_bytes // block_bytes, math.ceil(context_tokens / BLOCK_TOKENS) + 1
        if blocks < needed:
            raise DoesNotFit(name, "cpu", needed * block_bytes, cache_bytes)
        self.context_tokens = context_tokens
        self._name = name
        self._vocab_size = header.vocab_size
        self._lock = threading.Lock()
        self._streams: dict[int, TokenStream] = {}
        self._requests = self._steps = self._tokens = 0
        self._cache_used = 0.0
        self._closing = self._crashed = False
        self._worker = Worker("llama_demo.engines.openvino_worker")
        order = Load(str(model_path), blocks, tuple(sorted(eos_ids)), reproducible)
        loaded: Loaded = self._worker.load(model_path, order)
        self.resident_bytes = loaded.process_bytes + loaded.cache_bytes
        self._worker.start(self._receive, self._ended)

    @property
    def healthy(self) -> bool:
        return not (self._crashed or self._closing)

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return self._worker.pid

    def stats(self) -> EngineStats:
        """What it has done and is doing."""
        with self._lock:
            return EngineStats(len(self._streams), self._steps, self._tokens, self._cache_used)

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        """See `Engine.generate`. A continuation that would leave the context ends there, with `length`.

        Raises `ValueError` for no ids or ids that are not the model's, `PromptTooLong`, `UnsupportedParameter` for
        presence and frequency penalties, `EngineCrashed`, `Closing`.
        """
        check_ids(ids, self._vocab_size)
        _check_penalties(sampling)
        room = self.context_tokens - len(ids)
        if room < 1:
            raise PromptTooLong(len(ids), self.context_tokens - 1)
        with self._lock:
            if self._closing or self._crashed:
                raise self._end()
            self._requests += 1
            request = self._requests
            stream = TokenStream(lambda: self._worker.send(Cancel(request)))
            self._streams[request] = stream
        self._worker.send(Add(request, tuple(ids), _settings(sampling, room)))
        return stream

    def score(self, ids: Sequence[int], top_k: int) -> Scores:  # noqa: ARG002 (the contract names them)
        """Raises `Unsupported`."""
        self._refuse("scores")

    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> NDArray[np.float32]:  # noqa: ARG002
        """Raises `Unsupported`."""
        self._refuse("scores")

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:  # noqa: ARG002 (the contract names it)
        """Raises `Unsupported`."""
        self._refuse("features")

    def close(self) -> None:
        """See `Engine.close`. May be called twice."""
        with self._lock:
            self._closing = True
        self._worker.close()
        self._fail_all()

    def _refuse(self, feature: str) -> NoReturn:
        raise Unsupported(feature, self._name)

    # On the worker's reader thread.

    def _receive(self, message: Any) -> None:
        match message:
            case Step(progress, cache_used):
                with self._lock:
                    self._steps += 1
                    self._cache_used = cache_used
                    self._tokens += sum(len(made.ids) for made in progress)
                for made in progress:
                    self._deliver(made)
            case Cancelled(request):
                self._take_out(request).finish("cancelled")
            case Refused(request, problem):
                self._take_out(request).fail(Unsupported(problem, self._name))

    def _deliver(self, made: Progress) -> None:
        with self._lock:
            stream = self._streams[made.request]
        stream.put(map(Token, made.ids, made.logprobs))
        if made.finish is not None:
            self._take_out(made.request).finish(made.finish, made.end)

    def _take_out(self, request: int) -> TokenStream:
        with self._lock:
            return self._streams.pop(request)

    def _ended(self) -> None:
        with self._lock:
            self._crashed = not self._closing
        if self._crashed:
            _LOG.error("the engine of %s ended by itself", self._name)
        self._fail_all()

    def _fail_all(self) -> None:
        with self._lock:
            streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(self._end())

    def _end(self) -> Closing | EngineCrashed:
        return EngineCrashed(self._name) if self._crashed else Closing()


def _check_penalties(sampling: Sampling) -> None:
    """OpenVINO has penalties of these names, but adds to a logit below 0 what it should take from it: a token that is
    unlikely at first, and is written often, becomes the likeliest of all. Raises `UnsupportedParameter`."""
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name) != 0.0:
            raise UnsupportedParameter(name, "api.no_penalty")


def _settings(sampling: Sampling, room: int) -> dict[str, float | int | bool]:
    """`sampling` as OpenVINO words it, for a request with `room` tokens left in its context."""
    settings: dict[str, float | int | bool] = {
        "max_new_tokens": min(sampling.max_new_tokens, room),
        "repetition_penalty": sampling.repetition_penalty,
        "do_sample": not sampling.greedy,
    }
    if sampling.greedy:
        return settings
    settings |= {
        "temperature": max(sampling.temperature, _LEAST_TEMPERATURE),
        "top_p": sampling.top_p,
        "min_p": min(sampling.min_p, _LARGEST_MIN_P),
        "rng_seed": secrets.randbelow(SEED_LIMIT) if sampling.seed is None else sampling.seed,
    }
    if sampling.top_k > 0:
        settings["top_k"] = sampling.top_k
    return settings

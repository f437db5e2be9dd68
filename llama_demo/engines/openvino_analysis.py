"""Scores and features of a GGUF model on the CPU, from a second compiled graph of its file, in a process of its own.

OpenVINO's batching pipeline gives neither all log-probabilities nor hidden states. This is the parent's side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.checkpoints.gguf import read_header
from llama_demo.engines import Abilities
from llama_demo.engines.ids import check_endings, check_text
from llama_demo.engines.openvino import kv_block_bytes
from llama_demo.engines.openvino_messages import (
    BLOCK_TOKENS,
    Answer,
    EmbedIds,
    Loaded,
    LoadGraph,
    ScoreEndings,
    ScoreIds,
)
from llama_demo.engines.worker import Worker
from llama_demo.errors import Closing, EngineCrashed, Unsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_demo.engines.stream import TokenStream
    from llama_demo.values import Sampling, Scores

_LOG = logging.getLogger(__name__)


WORK_BYTES = 150_000_000
"""What scoring the longest text takes for the moment beside the cache: slices of activations and of logits."""


class OpenVINOAnalysis:
    """`engines.Engine` without `generate`. Calls are answered one after another.

    The file's OpenVINO form, as large as the file, is written once into `graph_folder` (`NAME.openvino` beside the
    file, unless told) and used from then on. Raises `BadCheckpoint` and `MemoryError`.
    """

    abilities = Abilities(generate=False, score=True, embed=True)

    def __init__(
        self,
        model_path: Path,
        *,
        name: str,
        context_tokens: int,
        reproducible: bool,
        graph_folder: Path | None = None,
    ) -> None:
        header = read_header(model_path)
        self.context_tokens = context_tokens
        self._name = name
        self._vocab_size = header.vocab_size
        self._lock = threading.Lock()
        self._calls: dict[int, Future[Any]] = {}
        self._last_call = 0
        self._closing = self._crashed = False
        self._worker = Worker("llama_demo.engines.openvino_analysis_worker")
        folder = graph_folder or model_path.with_suffix(".openvino")
        loaded: Loaded = self._worker.load(model_path, LoadGraph(str(model_path), str(folder), reproducible))
        blocks = -(-context_tokens // BLOCK_TOKENS)
        cache_bytes = blocks * kv_block_bytes(header, reproducible=True)
        self.resident_bytes = loaded.process_bytes + cache_bytes + WORK_BYTES
        self._worker.start(self._receive, self._ended)

    @property
    def healthy(self) -> bool:
        return not (self._crashed or self._closing)

    @property
    def pid(self) -> int:
        """The process that holds the graph."""
        return self._worker.pid

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:  # noqa: ARG002 (the contract names them)
        """Raises `Unsupported`."""
        raise Unsupported("generation", self._name)

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        """See `Engine.score`. Raises `ValueError`, `PromptTooLong`, `EngineCrashed`, `Closing`."""
        check_text(ids, self._vocab_size, self.context_tokens)
        scores: Scores = self._call(lambda call: ScoreIds(call, tuple(ids), top_k))
        return scores

    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Engine.score_endings`. Raises `ValueError`, `PromptTooLong`, `EngineCrashed`, `Closing`."""
        check_endings(prompts, endings, self._vocab_size, self.context_tokens)
        read, wanted = tuple(map(tuple, prompts)), tuple(map(tuple, endings))
        logprobs: NDArray[np.float32] = self._call(lambda call: ScoreEndings(call, read, wanted))
        return logprobs

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Engine.embed`. Raises `ValueError`, `PromptTooLong`, `EngineCrashed`, `Closing`."""
        for ids in batch:
            check_text(ids, self._vocab_size, self.context_tokens)
        vectors: NDArray[np.float32] = self._call(lambda call: EmbedIds(call, tuple(map(tuple, batch))))
        return vectors

    def close(self) -> None:
        """See `Engine.close`. May be called twice."""
        with self._lock:
            self._closing = True
        self._worker.close()
        self._fail_all()

    def _call(self, order: Any) -> Any:
        with self._lock:
            if self._closing or self._crashed:
                raise self._end()
            self._last_call += 1
            call = self._last_call
            future: Future[Any] = Future()
            self._calls[call] = future
        self._worker.send(order(call))
        return future.result()

    # On the worker's reader thread.

    def _receive(self, answer: Answer) -> None:
        with self._lock:
            future = self._calls.pop(answer.call)
        future.set_result(answer.value)

    def _ended(self) -> None:
        with self._lock:
            self._crashed = not self._closing
        if self._crashed:
            _LOG.error("the scoring process of %s ended by itself", self._name)
        self._fail_all()

    def _fail_all(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, {}
        for future in calls.values():
            future.set_exception(self._end())

    def _end(self) -> Closing | EngineCrashed:
        return EngineCrashed(self._name) if self._crashed else Closing()

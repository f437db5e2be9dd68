"""The process that owns one OpenVINO continuous-batching pipeline: takes orders, steps, sends what each step made.

A process of its own because `step()` holds Python's global lock for its whole length. It imports OpenVINO and nothing
of the page; every decision about requests is the parent's.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset15 as ops

from llama_demo.devices import core_limit
from llama_demo.engines.openvino_messages import (
    Add,
    Cancel,
    Cancelled,
    Load,
    Loaded,
    Progress,
    Refused,
    Step,
    exact_properties,
)
from llama_demo.engines.worker import LoadProblem, parent_connection
from llama_demo.reasons import Reason
from llama_demo.values import FinishReason, Token

MAX_BATCHED_TOKENS = 256
"""Prompt tokens of one step at most: others' next tokens wait for a step's length, so a long prompt goes in slices."""
MAX_REQUESTS = 256
KEPT_KERNELS = 16
"""OpenVINO keeps what it compiled for every number of tokens that a step has had, 5,000 of these unless told: memory
that grows by some 60 MB over thousands of chats. Fewer cost no speed, for the numbers of one hour are few."""


def main() -> None:
    """Loads what the first order says, then serves until the parent goes away."""
    connection = parent_connection()
    order = connection.recv()
    try:
        pipeline = open_pipeline(order)
        answer: object = Loaded(process_bytes(), pipeline.get_metrics().cache_size_in_bytes)
    except Exception as error:
        answer = load_problem(error)
    connection.send(answer)
    if isinstance(answer, Loaded):
        try:
            _Requests(connection, pipeline, order.eos_ids).serve()
        except (EOFError, BrokenPipeError):
            return
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def load_problem(error: Exception) -> LoadProblem:
    """What OpenVINO says, as `last_line`."""
    memory = isinstance(error, MemoryError) or "memory" in str(error).lower()
    return LoadProblem(memory, Reason("checkpoint.said", said=last_line(error)))


def last_line(error: Exception) -> str:
    """The last line of what OpenVINO says; the ones before are places in its source."""
    text = str(error).strip()
    return text.splitlines()[-1] if text else type(error).__name__


def open_pipeline(order: Load, **properties: object) -> Any:
    """A warm pipeline: OpenVINO prepares the weights within the first request, so one is made here."""
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = order.kv_blocks
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    scheduler.max_num_seqs = MAX_REQUESTS
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    exact = exact_properties(order.reproducible)
    profile = {"CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS, **thread_properties(), **exact, **properties}
    pipeline = genai.ContinuousBatchingPipeline(order.path, _no_tokenizer(), scheduler, "CPU", **profile)
    handle = pipeline.add_request(0, _tensor((0,)), _config({"max_new_tokens": 2}, ()))
    while pipeline.has_non_finished_requests():
        pipeline.step()
    del handle
    return pipeline


def thread_properties() -> dict[str, int]:
    """OpenVINO starts a thread for every core that it sees, however few of them a container has time for."""
    cores = core_limit()
    return {} if cores is None else {"INFERENCE_NUM_THREADS": cores}


def _no_tokenizer() -> Any:
    """Fills the place of a tokenizer in a pipeline that is only ever given ids.

    OpenVINO would else build one from the GGUF file, which takes time and fails for SentencePiece vocabularies. This
    one maps every text to one token of id 0.
    """
    text = ops.parameter([-1], ov.Type.string)
    shape = ops.concat([ops.shape_of(text), ops.constant(np.array([1], dtype=np.int64))], 0)
    ids = ops.broadcast(ops.constant(np.zeros((1, 1), dtype=np.int64)), shape)
    ids.output(0).set_names({"input_ids"})
    mask = ops.relu(ids)
    mask.output(0).set_names({"attention_mask"})
    with tempfile.TemporaryDirectory() as folder:
        ov.serialize(ov.Model([ids, mask], [text], "no_tokenizer"), str(Path(folder, "openvino_tokenizer.xml")))
        return genai.Tokenizer(folder)


def _tensor(ids: tuple[int, ...]) -> Any:
    return ov.Tensor(np.array([ids], dtype=np.int64))


def _config(settings: dict[str, float | int | bool], eos_ids: tuple[int, ...]) -> Any:
    config = genai.GenerationConfig(logprobs=1, **settings)
    if eos_ids:
        config.eos_token_id, config.stop_token_ids = eos_ids[0], set(eos_ids)
    else:
        # It insists on an end token and on its being a stop token, even where it is then to be ignored.
        config.eos_token_id, config.stop_token_ids, config.ignore_eos = 0, {0}, True
    return config


def process_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class _Requests:
    """The requests in flight, and the loop that serves them."""

    def __init__(self, connection: Connection, pipeline: Any, eos_ids: tuple[int, ...]) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._eos_ids = eos_ids
        self._handles: dict[int, Any] = {}

    def serve(self) -> None:
        """Takes every order that waits, then steps; sleeps on the pipe where there is nothing to do."""
        while True:
            while self._connection.poll(0) or not self._pipeline.has_non_finished_requests():
                self._take(self._connection.recv())
            self._pipeline.step()
            progress = [made for request in list(self._handles) if (made := self._read(request))]
            self._connection.send(Step(progress, self._pipeline.get_metrics().cache_usage / 100.0))

    def _take(self, order: object) -> None:
        match order:
            case Add(request, ids, settings):
                try:
                    config = _config(settings, self._eos_ids)
                    self._handles[request] = self._pipeline.add_request(request, _tensor(ids), config)
                except Exception as error:
                    self._connection.send(Refused(request, last_line(error)))
            case Cancel(request) if request in self._handles:
                self._handles.pop(request).cancel()
                self._connection.send(Cancelled(request))

    def _read(self, request: int) -> Progress | None:
        handle = self._handles[request]
        ids: list[int] = []
        logprobs: list[float] = []
        finish: FinishReason | None = None
        while handle.can_read():
            for output in handle.read().values():
                ids += output.generated_ids
                logprobs += output.generated_log_probs
                finish = _FINISH.get(output.finish_reason)
        if finish is None and handle.get_status() == genai.GenerationStatus.IGNORED:
            self._connection.send(Refused(request, "its context does not fit into the KV cache"))
            del self._handles[request]
            return None
        if finish is not None:
            del self._handles[request]
        end: Token | None = None
        if finish == "stop" and ids and ids[-1] in self._eos_ids:
            end = Token(ids.pop(), logprobs.pop())
        return Progress(request, tuple(ids), tuple(logprobs), finish, end) if ids or finish else None


_FINISH: dict[Any, FinishReason] = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}

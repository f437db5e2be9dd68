"""Our side of transformers' continuous batching: where a request's tokens are drawn, cancelled, counted and failed.

The library draws all requests with one seed and one random stream, and tells nobody that a cancelled request is gone.
So every request travels through it as a `Request`, which three small subclasses meet: where logits become tokens,
where the next batch is chosen, and where results are given out. It knows nothing of loading or of scores.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager, FIFOScheduler, RequestState
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import FutureRequestState
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING

from llama_demo.engines.stream import TokenStream
from llama_demo.engines.transformers_sampler import Sampler, choose
from llama_demo.errors import Closing, EngineCrashed
from llama_demo.placement import PAGE_TOKENS
from llama_demo.values import Sampling, Token

STEP_TOKENS = 512
"""A longer prompt is read over several steps, so that replies in progress are not held up by it."""
STEP_REQUESTS = 128
"""More requests than this wait for a place in the batch."""

_KEY = "request"
_SCHEDULER = "llama_demo"


class Request:
    """One request on its way through the library, which carries it as a setting of the request's own."""

    def __init__(self, ids: Sequence[int], sampling: Sampling, ends: Collection[int], model: str) -> None:
        self.stream = TokenStream(self._on_cancel)
        self.sampler = Sampler(sampling, ids)
        self.cancelled = False
        self.wake: Callable[[], None] = lambda: None
        self._ends = ends
        self._limit = sampling.max_new_tokens
        self._model = model
        self._made = 0

    def __deepcopy__(self, memo: dict[int, object]) -> Request:
        """The library copies a request's settings when it starts it anew after a full cache: it stays the same one."""
        return self

    def _on_cancel(self) -> None:
        self.cancelled = True
        self.wake()

    def take(self, token: Token) -> None:
        """The engine's thread: what this step drew. The end token ends the stream and is not part of it."""
        if self.cancelled:
            self.stream.finish("cancelled")
        elif not math.isfinite(token.logprob):
            self.fail(FloatingPointError("the model's logits are not finite"))
        elif token.id in self._ends:
            self.stream.finish("stop", token)
        else:
            self.stream.put([token])
            self._made += 1
            if self._made >= self._limit:
                self.stream.finish("length")

    def fail(self, cause: BaseException, closing: bool = False) -> None:
        """Ends this request alone, and has the scheduler drop it."""
        error = Closing() if closing else EngineCrashed(self._model)
        error.__cause__ = cause
        self.cancelled = True
        self.stream.fail(error)


class RequestSampler(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Draws the step's tokens and hands them to their requests, leaving the library nothing but that choice to make."""

    supported_kwargs = {_KEY: Request}  # noqa: RUF012 - the library's own attribute
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[FutureRequestState]) -> torch.Tensor:
        """The library's order of rows for the step to come; it has no numbers to take along."""
        self._requests = [_request(future.state) for future in requests_with_new_token]
        return torch.zeros(len(self._requests), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """`scores` float32 [rows, vocabulary], rows of prompts that are still being read last."""
        requests = self._requests
        if not requests:
            return scores
        tokens = choose(scores[: len(requests)], [request.sampler for request in requests])
        chosen = torch.tensor([[token.id] for token in tokens], device=scores.device)
        scores[: len(requests)] = float("-inf")
        scores[: len(requests)].scatter_(1, chosen, 0.0)
        for request, token in zip(requests, tokens, strict=True):
            request.take(token)
        return scores


class CancellingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Drops cancelled requests before each step, and tells them so."""

    def clear_cancelled_requests(self) -> list[RequestState]:
        for state in [*self.active_requests.values(), *self.waiting_requests.values()]:
            if _request(state).cancelled:
                self.set_request_cancellation(state.request_id)
        cleared: list[RequestState] = super().clear_cancelled_requests()
        for state in cleared:
            _request(state).stream.finish("cancelled")
        if cleared:
            # The library admits nobody after the cache was full until a request *finishes*: cancelling frees it too.
            self.block_new_requests = False
        return cleared


class Router(OutputRouter):  # type: ignore[misc]
    """Results have reached their streams by the time the library gives them out: what is left is failures."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def deliver(self, output: Any) -> None:  # noqa: ARG002
        return

    def deliver_batch(self, outputs: list[Any]) -> None:  # noqa: ARG002
        return

    def fail_and_deliver(self, state: RequestState, error: Exception) -> None:
        _request(state).fail(error, self.closing)


class Batch:
    """The running manager: one thread owns the model and steps all requests together.

    Prefixes are not shared between requests: reading a prompt's rest beside a kept prefix rounds otherwise than
    reading it whole, and a seed must repeat its text exactly.

    Raises `MemoryError` or torch's own out-of-memory error where the cache does not fit.
    """

    def __init__(self, model: Any, pages: int) -> None:
        SCHEDULER_MAPPING.setdefault(_SCHEDULER, CancellingScheduler)
        self._numbers = itertools.count()
        self._open: weakref.WeakSet[Request] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._router = Router()
        self.manager = ContinuousBatchingManager(model, GenerationConfig(do_sample=False), _config(pages))
        self.manager.output_router = self._router
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([RequestSampler()]))
        processors.tensors_required = 1
        self.manager.logit_processor = processors
        self.manager.warmup()
        self.cache_bytes = int(self.manager.batch_processor.cache.cache_tensor.nbytes)
        # A thread takes after the one that starts it: the library's must not keep the process alive.
        starter = threading.Thread(target=self.manager.start, daemon=True)
        starter.start()
        starter.join()

    @property
    def accepts(self) -> bool:
        refusal = self.manager.background_thread_status.can_accept_new_requests()
        return refusal is None and bool(self.manager.is_running())

    def add(self, request: Request, ids: Sequence[int], max_new_tokens: int, ends: Collection[int]) -> None:
        number = str(next(self._numbers))
        with self._lock:
            self._open.add(request)
        request.wake = lambda: self.manager.cancel_request(number)
        self.manager.add_request(
            list(ids),
            request_id=number,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends) or [-1],
            **{_KEY: request},
        )
        if not self.accepts:
            # The thread ended beside us, maybe after it had failed those in its queue for the last time.
            request.fail(RuntimeError("the engine's thread has ended"), self._router.closing)

    def pause(self) -> AbstractContextManager[None]:
        """Entered between two steps. Raises `RuntimeError` where the thread has ended."""
        pause: AbstractContextManager[None] = self.manager.pause()
        return pause

    def close(self) -> None:
        """Ends what is in flight with `Closing`, and returns when the thread has ended and the model is let go."""
        self._router.closing = True
        self.manager.stop(block=True, hard_stop=True)
        self.manager.destroy()
        self.manager.model = None
        # Those that the thread had taken from its queue, but not put into a batch, when it was told to stop.
        with self._lock:
            for request in self._open:
                request.fail(RuntimeError("the engine was closed"), closing=True)


def _config(pages: int) -> ContinuousBatchingConfig:
    """Everything that would take the choice of tokens out of our hands, or fetch kernels from the Hub, is off."""
    return ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=pages,
        max_batch_tokens=STEP_TOKENS,
        max_requests_per_batch=STEP_REQUESTS,
        max_memory_percent=1.0,
        allow_block_sharing=False,
        use_async_batching=False,
        use_cuda_graph=False,
        scheduler_type=_SCHEDULER,
        auto_switch_to_flash=False,
    )


def _request(state: RequestState) -> Request:
    request = state.logit_processor_kwargs[_KEY]
    assert isinstance(request, Request)
    return request

"""A model on a GPU that is lent for one call at a time, as on a ZeroGPU Space: what needs it runs in a process forked
for the call, with a duration that is told before.

So no thread owns the model, and nothing is batched. Until a model is placed where the lender finds it, the same code
runs plainly, in this process and on the CPU.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from llama_demo.engines.transformers import TransformersEngine
from llama_demo.engines.transformers_batch import Request
from llama_demo.engines.transformers_sampler import Sampler, choose
from llama_demo.errors import LlamaDemoError
from llama_demo.model_errors import LentTimeUsed, NothingLent
from llama_demo.values import Sampling, Token

START_SECONDS = 10.0
"""The weights are moved to the GPU at the beginning of a call."""
READ_SECONDS, WRITE_SECONDS = 0.0005, 0.04
"""A token of the prompt, and one that is written: a 7B by plain steps, with room to spare."""
MOST_SECONDS = 120.0
"""More is refused to whoever has no subscription."""

Result = TypeVar("Result")
Lend = Callable[..., Any]
"""Called as `spaces.GPU` is, with a function and what its calls take: gives the function that borrows the GPU."""


def lender() -> Lend:
    """The Space's own. Its package must have been imported before torch was."""
    import spaces

    return spaces.GPU  # type: ignore[no-any-return]


class Calls:
    """Stands where a batch does, and starts a call for each request."""

    def __init__(self, model: Any, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self._model = model
        self._write: Callable[..., Any] = self._tokens
        self._lock = threading.Lock()
        self._open: dict[Request, threading.Thread] = {}
        self._closing = False

    @property
    def accepts(self) -> bool:
        return not self._closing

    def borrow(self, lend: Lend) -> None:
        """From now on for each call."""
        self._write = lend(self._tokens, duration=_writing_seconds)

    def add(self, request: Request, ids: Sequence[int], max_new_tokens: int, ends: Collection[int]) -> None:
        """The call has the context of whoever asked: the lender finds there whose quota it takes from."""
        request.wake = lambda: request.stream.finish("cancelled")
        asked = (list(ids), request.sampler.sampling, max_new_tokens, sorted(ends))
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._read, request, asked), name="lent", daemon=True)
        with self._lock:
            if self._closing:
                request.fail(RuntimeError("the engine was closed"), closing=True)
                return
            self._open[request] = thread
            thread.start()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """There is nobody to wait for. Raises `RuntimeError` where it was closed."""
        if self._closing:
            raise RuntimeError("the engine was closed")
        yield

    def close(self) -> None:
        """Ends what is in flight with `Closing`, and returns when the calls have ended."""
        with self._lock:
            self._closing = True
            left = dict(self._open)
        for request in left:
            request.fail(RuntimeError("the engine was closed"), closing=True)
        for thread in left.values():
            thread.join()
        self._model = None

    def _read(self, request: Request, asked: tuple[Any, ...]) -> None:
        """This process's side: hands on the tokens of a call for as long as somebody wants them."""
        try:
            with closing(self._write(*asked)) as tokens:
                for token in tokens:
                    if not request.stream.ended:
                        request.take(token)
                    if request.stream.ended:
                        break
        except Exception as error:
            if (refusal := _refusal(error, _writing_seconds(*asked))) is None:
                request.fail(error)
            else:
                request.stream.fail(refusal)
        finally:
            with self._lock:
                self._open.pop(request, None)

    def _tokens(
        self, ids: Sequence[int], sampling: Sampling, max_new_tokens: int, ends: Collection[int]
    ) -> Iterator[Token]:
        """The borrowing process's side: one step after the other, up to a token of `ends` or `max_new_tokens`."""
        from transformers import DynamicCache

        sampler, cache, device = Sampler(sampling, ids), DynamicCache(), self._model.device
        step = torch.tensor([ids], device=device)
        for _ in range(max_new_tokens):
            with torch.no_grad():
                made = self._model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            (token,) = choose(made.logits[:, -1].float(), [sampler])
            yield token
            if token.id in ends:
                return
            step = torch.tensor([[token.id]], device=device)


class LentEngine(TransformersEngine):
    """The same on `device`, which is lent, from `place` on."""

    _batch: Calls

    def __init__(self, folder: Path, *, device: str = "cuda", **facts: Any) -> None:
        self._device = device
        super().__init__(folder, **facts)
        self._borrowed: Callable[..., Any] = super()._read_with

    def place(self, lend: Lend) -> None:
        """Puts the weights where the lender finds them, who may watch the main thread alone, and only until the page is
        launched: call it there, and before."""
        self._model.to(self._device)
        self._batch.borrow(lend)
        self._borrowed = lend(super()._read_with, duration=_reading_seconds)

    def _make_batch(self, pages: int) -> Calls:
        return Calls(self._model, pages * self._page_bytes)

    def _read_with(self, task: Callable[..., Result], *asked: Any) -> Result:
        try:
            result: Result = self._borrowed(task, *asked)
        except Exception as error:
            raise _refusal(error, _reading_seconds(task, *asked)) or error from None
        return result


def _writing_seconds(ids: Sequence[int], sampling: Sampling, max_new_tokens: int, ends: Collection[int]) -> float:  # noqa: ARG001
    return _bounded(len(ids) * READ_SECONDS + max_new_tokens * WRITE_SECONDS)


def _reading_seconds(task: Callable[..., Any], texts: Sequence[int] | Sequence[Sequence[int]], *_: Any) -> float:  # noqa: ARG001
    return _bounded(sum(1 if isinstance(text, int) else len(text) for text in texts) * READ_SECONDS)


def _bounded(seconds: float) -> float:
    return min(MOST_SECONDS, START_SECONDS + seconds)


def _refusal(error: Exception, seconds: float) -> LlamaDemoError | None:
    """Why nothing was lent, as one of ours; None for other errors. `spaces` tells them apart in a title alone."""
    title, said = str(getattr(error, "title", "")), str(error)
    if not title.startswith("ZeroGPU"):
        return None
    if "No GPU" in said:
        return NothingLent()
    if any(word in title for word in ("quota", "duration", "credits")):
        return LentTimeUsed(seconds)
    return None

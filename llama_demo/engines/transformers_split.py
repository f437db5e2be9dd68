"""A model whose layers lie on several devices: plain `generate`, one request after the other.

transformers' continuous batching keeps its cache on one device; `generate` keeps each layer's beside the layer. It
knows nothing of loading or of scores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llama_demo.engines.transformers_batch import Request
from llama_demo.engines.transformers_sampler import choose


def device_map(layers: Mapping[str, int], *, tied: bool) -> dict[str, str]:
    """accelerate's map of a Llama whose first layers, so many, lie on the first of `layers`, and so on: the embedding
    before them, the head after them, or beside the embedding where the two are one matrix."""
    order = [device for device, count in layers.items() for _ in range(count)]
    places = {f"model.layers.{number}": device for number, device in enumerate(order)}
    first, last = order[0], order[-1]
    ends = {"model.embed_tokens": first, "model.rotary_emb": first, "model.norm": last}
    return {**ends, **places, "lm_head": first if tied else last}


class OneByOne:
    """A queue of requests, and the thread that owns the model. `cache_bytes` is what one full conversation takes."""

    def __init__(self, model: Any, cache_bytes: int) -> None:
        # The checkpoint's own defaults would draw and end otherwise than was asked for.
        model.generation_config = GenerationConfig()
        self.cache_bytes = cache_bytes
        self._model = model
        self._waiting: deque[tuple[Request, list[int], int]] = deque()
        self._running: Request | None = None
        self._changed = threading.Condition()
        self._step = threading.Lock()
        self._guests = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    @property
    def accepts(self) -> bool:
        return not self._closing and self._thread.is_alive()

    def add(self, request: Request, ids: Sequence[int], max_new_tokens: int, ends: Collection[int]) -> None:  # noqa: ARG002
        """`request` itself knows the end tokens; the signature is that of `Batch`."""
        request.wake = lambda: self._drop(request)
        with self._changed:
            if self._closing:
                request.fail(RuntimeError("the engine was closed"), closing=True)
                return
            self._waiting.append((request, list(ids), max_new_tokens))
            self._changed.notify_all()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Entered between two tokens. Raises `RuntimeError` where the thread has ended."""
        with self._changed:
            if not self.accepts:
                raise RuntimeError("the engine was closed")
            self._guests += 1
        try:
            with self._step:
                yield
        finally:
            with self._changed:
                self._guests -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Ends what is in flight with `Closing`, and returns when the thread has ended and the model is let go."""
        with self._changed:
            self._closing = True
            left = [request for request, _, _ in self._waiting]
            self._waiting.clear()
            if self._running is not None:
                left.append(self._running)
            self._changed.notify_all()
        for request in left:
            request.fail(RuntimeError("the engine was closed"), closing=True)
        self._thread.join()
        self._model = None

    def _drop(self, request: Request) -> None:
        with self._changed:
            for place in [place for place in self._waiting if place[0] is request]:
                self._waiting.remove(place)
                request.stream.finish("cancelled")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                self._running, ids, max_new_tokens = self._waiting.popleft()
                request = self._running
            try:
                with self._step, torch.no_grad():
                    self._generate(request, ids, max_new_tokens)
            except Exception as error:
                request.fail(error)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _generate(self, request: Request, ids: Sequence[int], max_new_tokens: int) -> None:
        prompt = torch.tensor([ids], device=self._model.get_input_embeddings().weight.device)
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0),
            logits_processor=LogitsProcessorList([_Draw(request)]),
            stopping_criteria=StoppingCriteriaList([_Ended(request, self._give_way)]),
        )

    def _give_way(self) -> None:
        """Lets those who wait for the model have it before the next token."""
        self._step.release()
        with self._changed:
            self._changed.wait_for(lambda: self._guests == 0 or self._closing)
        self._step.acquire()


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Draws the token and hands it to its request, leaving the library nothing but that choice to make."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        (token,) = choose(scores.float(), [self._request.sampler])
        self._request.take(token)
        chosen = torch.full_like(scores, float("-inf"))
        chosen[0, token.id] = 0.0
        return chosen


class _Ended(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, request: Request, give_way: Any) -> None:
        self._request, self._give_way = request, give_way

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        self._give_way()
        return torch.full((len(input_ids),), self._request.stream.ended, device=input_ids.device)

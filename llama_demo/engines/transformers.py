"""The engine for everything that OpenVINO does not take: transformers, with continuous batching on one device, or one
request after the other where the layers lie on several.

One set of weights generates, scores and embeds. It knows checkpoints in Hugging Face format (and GGUF files, which
transformers reads exactly), and nothing of text or people.
"""

from __future__ import annotations

import contextlib
import gc
import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from llama_demo.engines import Abilities, transformers_scoring
from llama_demo.engines.heap import own_pages, trim
from llama_demo.engines.ids import check_endings, check_text
from llama_demo.engines.stream import TokenStream
from llama_demo.engines.transformers_adapter import adapted
from llama_demo.engines.transformers_batch import Batch, Request
from llama_demo.engines.transformers_slices import slice_model
from llama_demo.engines.transformers_split import OneByOne, device_map
from llama_demo.errors import (
    BadCheckpoint,
    Closing,
    DoesNotFit,
    EngineCrashed,
    LlamaDemoError,
    PromptTooLong,
    Unsupported,
)
from llama_demo.placement import PAGE_TOKENS
from llama_demo.reasons import Reason
from llama_demo.values import Sampling, Scores

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
QUANTIZED = ("8-bit", "4-bit")
Result = TypeVar("Result")
DEFAULT_CONTEXTS = 4
"""Full conversations that the cache holds where its size is not given."""


class Batching(Protocol):
    """How requests share the model: `Batch`, `OneByOne`, or whoever runs a call for each."""

    cache_bytes: int

    @property
    def accepts(self) -> bool: ...
    def add(self, request: Request, ids: Sequence[int], max_new_tokens: int, ends: Collection[int]) -> None: ...
    def pause(self) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class TransformersEngine:
    """A causal language model in `folder` (Hugging Face format, or a GGUF file).

    `layers` says how many of its layers lie on which device, as torch names them, in their order; without it, all are
    on the CPU. `dtype` "auto" is the checkpoint's own, but bfloat16 instead of float16 on a CPU, which is slow at the
    latter; "8-bit" and "4-bit" are bitsandbytes' LLM.int8 and NF4.
    `reproducible` computes in float32 whatever `dtype` says: rounding then differs by some 1e-6 with the company in a
    batch, and a seeded text among others is all but always the one it is alone. `cache_bytes` bounds the KV cache.

    A `LlamaForSequenceClassification` has features only. With `base`, `folder` is a LoRA adapter for that engine's
    model, whose weights are shared; it must stay open for as long. `pretraining_tp` is the checkpoint's own where it is
    0; above 1, matrices are multiplied in so many slices.

    Raises `BadCheckpoint` for files that are not what they claim, `DoesNotFit` where `cache_bytes` holds less than
    one context, `MemoryError` where weights and cache do not fit, and `WrongBase`.
    """

    abilities = Abilities(generate=True, score=True, embed=True)

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        eos_ids: Collection[int],
        context_tokens: int,
        layers: Mapping[str, int] | None = None,
        dtype: str = "auto",
        cache_bytes: int | None = None,
        reproducible: bool = False,
        base: TransformersEngine | None = None,
        pretraining_tp: int = 0,
    ) -> None:
        self.name = name
        self.context_tokens = context_tokens
        self._layers: dict[str, int] = dict(layers or {"cpu": 0}) if base is None else base._layers
        self._eos_ids = frozenset(eos_ids)
        self._closing = False
        self._close_lock = threading.Lock()
        self._analysis = threading.Lock()
        with _out_of_memory(), own_pages():
            if base is None:
                self._model = _load(folder, self._layers, "float32" if reproducible else dtype)
                self._slice(folder, pretraining_tp)
                writes = _writes(self._model)
            else:
                with base._turn() as model:
                    self._model, writes = adapted(model, folder, name=name, base_name=base.name)
                writes = writes and base.abilities.generate
            if not writes:
                self.abilities = Abilities(generate=False, score=False, embed=True)
            self._vocabulary = int(self._model.config.vocab_size)
            self._hidden_size = int(self._model.config.hidden_size)
            pages = self._pages(cache_bytes)
            self._batch = self._make_batch(pages)
        shared = _bytes(base._model) if base is not None else 0
        self.resident_bytes = _bytes(self._model) - shared + self._batch.cache_bytes

    def _make_batch(self, pages: int) -> Batching:
        if len(self._layers) > 1:
            return OneByOne(self._model, pages * self._page_bytes)
        return Batch(self._model, pages)

    def _slice(self, folder: Path, asked: int) -> None:
        slices = asked or getattr(self._model.config, "pretraining_tp", None) or 1
        if slices == 1:
            return
        if getattr(self._model, "is_quantized", False) or len(self._layers) > 1:
            raise Unsupported(f"pretraining_tp {slices} in 8 or 4 bits, or over several devices", self.name)
        try:
            slice_model(self._model, slices)
        except ValueError as error:
            raise BadCheckpoint(str(folder), Reason("checkpoint.slices", slices=slices, said=str(error))) from None

    def _pages(self, cache_bytes: int | None) -> int:
        least = math.ceil(self.context_tokens / PAGE_TOKENS) + (0 if len(self._layers) > 1 else 1)
        if cache_bytes is None:
            return DEFAULT_CONTEXTS * least
        pages = cache_bytes // self._page_bytes
        if pages < least:
            raise DoesNotFit(self.name, ", ".join(self._layers), least * self._page_bytes, cache_bytes)
        return pages

    @property
    def _page_bytes(self) -> int:
        config = self._model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        each = 2 * config.num_hidden_layers * config.num_key_value_heads * head * self._model.dtype.itemsize
        return int(each * PAGE_TOKENS)

    @property
    def healthy(self) -> bool:
        return not self._closing and self._batch.accepts

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        self._allow(self.abilities.generate, "generation")
        check_text(ids, self._vocabulary, self.context_tokens)
        room = self.context_tokens - len(ids)
        if room < 1:
            raise PromptTooLong(len(ids), self.context_tokens - 1)
        sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
        if not self.healthy:
            raise self._gone()
        request = Request(ids, sampling, self._eos_ids, self.name)
        self._batch.add(request, ids, sampling.max_new_tokens, self._eos_ids)
        return request.stream

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        self._allow(self.abilities.score, "scores")
        check_text(ids, self._vocabulary, self.context_tokens)
        if not 0 <= top_k <= self._vocabulary:
            raise ValueError(f"top_k is {top_k}, but it must be from 0 to {self._vocabulary}")
        return self._read_with(transformers_scoring.score, ids, top_k)

    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self._allow(self.abilities.score, "scores")
        check_endings(prompts, endings, self._vocabulary, self.context_tokens)
        return self._read_with(transformers_scoring.score_endings, prompts, endings)

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        for ids in batch:
            check_text(ids, self._vocabulary, self.context_tokens)
        return self._read_with(transformers_scoring.embed, batch, self._hidden_size)

    def close(self) -> None:
        with self._close_lock:
            if self._closing:
                return
            self._closing = True
            self._batch.close()
            with self._analysis:
                self._model = None
            gc.collect()
            trim()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _allow(self, able: bool, feature: str) -> None:
        if not able:
            raise Unsupported(feature, self.name)

    def _read_with(self, task: Callable[..., Result], *asked: Any) -> Result:
        """What `task`, one of `transformers_scoring`, makes of texts when it has the model."""
        return task(self._turn, *asked)

    @contextmanager
    def _turn(self) -> Iterator[Any]:
        """The model, while the engine's thread waits between two steps; one caller at a time."""
        with self._analysis, _out_of_memory(), contextlib.ExitStack() as stack:
            if not self.healthy:
                raise self._gone()
            try:
                stack.enter_context(self._batch.pause())
            except RuntimeError:
                raise self._gone() from None
            yield self._model

    def _gone(self) -> LlamaDemoError:
        return Closing() if self._closing else EngineCrashed(self.name)


def _load(folder: Path, layers: Mapping[str, int], dtype: str) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # how far a load is, is the registry's to tell
    if dtype not in (*DTYPES, *QUANTIZED, "auto"):
        raise ValueError(f"dtype is {dtype!r}, but it must be auto or one of {', '.join((*DTYPES, *QUANTIZED))}")
    device = next(iter(layers))
    source, gguf_file = (folder.parent, folder.name) if folder.is_file() else (folder, None)
    try:
        options: dict[str, Any] = {"gguf_file": gguf_file, "local_files_only": True}
        config = AutoConfig.from_pretrained(str(source), **options)
        if dtype == "auto" and device == "cpu" and config.dtype == torch.float16:
            dtype = "bfloat16"  # asked for at once: a model that is cast loses digits of its rotary frequencies as well
        if len(layers) > 1:
            options["device_map"] = device_map(layers, tied=config.tie_word_embeddings)
        elif device != "cpu" or dtype in QUANTIZED:
            options["device_map"] = {"": device}
        if dtype in QUANTIZED:
            options["quantization_config"] = _quantization(dtype)
        model, info = AutoModelForCausalLM.from_pretrained(
            str(source),
            dtype=_computed_in(dtype),
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        said = str(error).splitlines()[0] if str(error) else repr(error)
        raise BadCheckpoint(str(folder), Reason("checkpoint.said", said=said)) from error
    missing = set(info["missing_keys"])
    if not _writes(model):
        missing.discard("lm_head.weight")
    if missing:
        # The library fills these with random numbers and goes on.
        raise BadCheckpoint(str(folder), Reason("checkpoint.lacks", names=", ".join(sorted(missing)[:3])))
    return model.eval()


def _quantization(dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if dtype == "8-bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=_computed_in(dtype))


def _computed_in(dtype: str) -> torch.dtype | str:
    """LLM.int8 multiplies in float16; NF4 in bfloat16 where the GPU has it."""
    if dtype == "4-bit" and (not torch.cuda.is_available() or torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return torch.float16 if dtype in QUANTIZED else DTYPES.get(dtype, "auto")


def _writes(model: Any) -> bool:
    """Whether the checkpoint is a language model, and not a classifier, whose next-token distribution is nobody's."""
    return "LlamaForSequenceClassification" not in (model.config.architectures or [])


def _bytes(model: Any) -> int:
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """torch's several ways to say so, as `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise

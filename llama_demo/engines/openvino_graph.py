"""The compiled graph that gives what the batching pipeline does not: log-probabilities of given tokens, hidden states.

Runs in the analysis process. The body maps ids to last hidden states, in slices and with several texts in one pass; the
head maps hidden states to what is asked of their distributions, so that no array of all logits leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops
from openvino._offline_transformations import paged_attention_transformation

from llama_demo.engines.openvino_messages import BLOCK_TOKENS, scoring_properties
from llama_demo.engines.openvino_worker import thread_properties
from llama_demo.values import Scores

SLICE_TOKENS = 256
"""Tokens of one pass through the body: attention and activations stay small, the matrix products large enough."""
HEAD_ROWS = 64
"""Positions of one pass through the head: its arrays are as wide as the vocabulary."""
USUAL_TOP_K = 20
"""As many alternatives as the OpenAI API's `top_logprobs` allows."""

ENDINGS_AT_ONCE = 16
"""Endings of one pass: each has blocks of its own in the cache."""

Hidden = NDArray[np.float32]


class Graph:
    """A body and a head, compiled from one OpenVINO model file, sharing its weights."""

    def __init__(self, model_file: Path, *, reproducible: bool) -> None:
        self._core = ov.Core()
        model = self._core.read_model(str(model_file))
        paged_attention_transformation(model)
        product = model.get_results()[0].input_value(0).get_node()
        while product.get_type_name() != "MatMul":
            product = product.input_value(0).get_node()
        self._product = product
        self._width = product.input_value(0).get_partial_shape()[-1].get_length()
        self._properties = {**thread_properties(), **scoring_properties(reproducible)}
        flat = ops.reshape(product.input_value(0), ops.constant(np.array([-1, self._width])), False)
        self._body = self._compile(ov.Model([ops.result(flat)], model.get_parameters(), "body"))
        self._vocabulary = product.input_value(1).get_partial_shape()[0].get_length()
        self._head = self._compile(_head(product, self._width, min(USUAL_TOP_K, self._vocabulary)))
        self._wanted_head: Any = None
        self._caches = [name for port in self._body.inputs if "_cache." in (name := port.get_any_name())]

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        """See `Scores`; `top_k` may be 0."""
        head = self._head_for(min(max(top_k, 1), self._vocabulary))
        rows: list[list[NDArray[Any]]] = []
        targets = np.array([*ids[1:], 0], dtype=np.int64)[:, None]
        start = 0
        for hidden in self._slices(ids):
            for first in range(0, len(hidden), HEAD_ROWS):
                part = hidden[first : first + HEAD_ROWS]
                made = head([part, targets[start + first : start + first + len(part)]])
                rows.append([made[name].copy() for name in ("logprob", "rank", "entropy", "top", "top_ids")])
            start += len(hidden)
        return _scores([np.concatenate(column) for column in zip(*rows, strict=True)], top_k)

    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Hidden:
        """See `Engine.score_endings`. The first tokens are judged from the prompt's last state; for the rest each
        ending goes on from the prompt's blocks in the cache, the last of them, half full, copied for it."""
        logprobs = np.full((len(prompts), len(endings), max(map(len, endings))), np.nan, dtype=np.float32)
        firsts = np.array([[ending[0] for ending in endings]], dtype=np.int64)
        longer = [place for place, ending in enumerate(endings) if len(ending) > 1]
        lasts: Sequence[Hidden] = [] if longer else list(self.embed(prompts))
        for index, prompt in enumerate(prompts):
            if longer:
                request = self._request(_blocks(len(prompt)) + ENDINGS_AT_ONCE * (1 + _blocks(logprobs.shape[2])))
                last = self._read(request, prompt)
            else:
                last = lasts[index]
            logprobs[index, :, 0] = self._judge(last[None], firsts)[0]
            for start in range(0, len(longer), ENDINGS_AT_ONCE):
                places = longer[start : start + ENDINGS_AT_ONCE]
                later = self._go_on(request, len(prompt), [endings[place] for place in places])
                for place, found in zip(places, later, strict=True):
                    logprobs[index, place, 1 : 1 + len(found)] = found
        return logprobs

    def _read(self, request: Any, ids: Sequence[int]) -> Hidden:
        """The last hidden state of one text, whose keys and values stay in the request's first blocks."""
        for past in range(0, len(ids), SLICE_TOKENS):
            hidden = _infer(request, [ids[past : past + SLICE_TOKENS]], past)
        last: Hidden = hidden[-1]
        return last

    def _go_on(self, request: Any, past: int, endings: Sequence[Sequence[int]]) -> list[Hidden]:
        """The log-probabilities of each ending's tokens but the first, after the `past` tokens in the request's blocks.

        Each ending shares the full ones of those, and has as many of its own as it may need.
        """
        shared, free = past // BLOCK_TOKENS, _blocks(past)
        each = 1 + _blocks(max(map(len, endings)))
        owns = [range(free + each * place, free + each * (place + 1)) for place in range(len(endings))]
        if past % BLOCK_TOKENS:
            for name in self._caches:
                blocks = request.get_tensor(name).data
                blocks[[own[0] for own in owns]] = blocks[shared]
        fed = [ending[:-1] for ending in endings]
        hidden = _infer(request, fed, past, [[*range(shared), *own] for own in owns])
        wanted = np.concatenate([np.array(ending[1:], dtype=np.int64) for ending in endings])
        found = self._judge(hidden, wanted[:, None])[:, 0]
        return np.split(found, np.cumsum([len(ids) for ids in fed])[:-1])

    def _judge(self, hidden: Hidden, wanted: NDArray[np.int64]) -> Hidden:
        """The log-probabilities of `wanted` [n, any] after `hidden` [n, width], a few rows at a time."""
        if self._wanted_head is None:
            self._wanted_head = self._compile(_wanted_head(self._product, self._width))
        parts = range(0, len(hidden), HEAD_ROWS)
        made = [self._wanted_head([hidden[at : at + HEAD_ROWS], wanted[at : at + HEAD_ROWS]])[0].copy() for at in parts]
        return np.concatenate(made)

    def embed(self, batch: Sequence[Sequence[int]]) -> Hidden:
        """float32 [len(batch), width]: each text's last hidden state. Short texts share a pass, each with its own past,
        so that none sees or changes another."""
        vectors = np.empty((len(batch), self._width), dtype=np.float32)
        short = [index for index, ids in enumerate(batch) if len(ids) <= SLICE_TOKENS]
        for pack in _packs(short, [len(ids) for ids in batch]):
            ends = np.cumsum([len(batch[index]) for index in pack]) - 1
            vectors[pack] = self._pass([batch[index] for index in pack])[ends]
        for index in set(range(len(batch))).difference(short):
            for hidden in self._slices(batch[index]):
                vectors[index] = hidden[-1]
        return vectors

    def _slices(self, ids: Sequence[int]) -> Iterator[Hidden]:
        """The hidden states of one text, a slice at a time, each seeing those before it."""
        request = self._request(_blocks(len(ids)))
        for past in range(0, len(ids), SLICE_TOKENS):
            yield _infer(request, [ids[past : past + SLICE_TOKENS]], past)

    def _pass(self, texts: Sequence[Sequence[int]]) -> Hidden:
        return _infer(self._request(sum(_blocks(len(ids)) for ids in texts)), texts, 0)

    def _request(self, blocks: int) -> Any:
        """A fresh request with room in its caches; both are given back when it is dropped."""
        request = self._body.create_infer_request()
        for name in self._caches:
            port = self._body.input(name)
            shape = [blocks, *(side.get_length() for side in list(port.get_partial_shape())[1:])]
            request.set_tensor(name, ov.Tensor(port.get_element_type(), ov.Shape(shape)))
        return request

    def _head_for(self, top_k: int) -> Any:
        """The number of alternatives is part of the graph: the head that is kept has the usual ones, and where more are
        asked for, one is made for that call alone."""
        if top_k <= USUAL_TOP_K:
            return self._head
        return self._compile(_head(self._product, self._width, top_k))

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._properties)


def _head(product: Any, width: int, top_k: int) -> Any:
    """hidden [n, width], target [n, 1] -> log-probability and rank of the target, entropy, and the likeliest tokens."""
    hidden = ops.parameter([-1, width], ov.Type.f32)
    target = ops.parameter([-1, 1], ov.Type.i64)
    weights, flags = product.input_value(1), product.get_attributes()
    logprobs = ops.log_softmax(ops.matmul(hidden, weights, False, flags["transpose_b"]), 1)
    chosen = ops.gather_elements(logprobs, target, 1)
    across = ops.constant(np.array([1]))
    better = ops.reduce_sum(ops.convert(ops.greater(logprobs, chosen), "i32"), across, False)
    entropy = ops.negative(ops.reduce_sum(ops.multiply(ops.exp(logprobs), logprobs), across, False))
    top = ops.topk(logprobs, ops.constant(top_k), 1, "max", "value", "i32")
    outputs = {"logprob": chosen, "rank": better, "entropy": entropy, "top": top.output(0), "top_ids": top.output(1)}
    results = []
    for name, output in outputs.items():
        result = ops.result(output)
        result.output(0).set_names({name})
        results.append(result)
    return ov.Model(results, [hidden, target], "head")


def _wanted_head(product: Any, width: int) -> Any:
    """hidden [n, width], wanted [n, any] -> the log-probabilities of the wanted tokens, of the same shape."""
    hidden = ops.parameter([-1, width], ov.Type.f32)
    wanted = ops.parameter([-1, -1], ov.Type.i64)
    logits = ops.matmul(hidden, product.input_value(1), False, product.get_attributes()["transpose_b"])
    found = ops.gather_elements(ops.log_softmax(logits, 1), wanted, 1)
    return ov.Model([ops.result(found)], [hidden, wanted], "wanted")


def _infer(
    request: Any, texts: Sequence[Sequence[int]], past: int, tables: Sequence[Sequence[int]] | None = None
) -> Hidden:
    """One pass: `texts` side by side, each after `past` tokens that the caches hold already, in the blocks that its
    entry in `tables` names; without tables each text has as many blocks as it needs, one after the other."""
    lengths = [len(ids) for ids in texts]
    ends = np.cumsum([0, *(_blocks(past + length) for length in lengths)])
    tables = tables or [range(start, end) for start, end in pairwise(ends)]
    inputs = {
        "input_ids": np.concatenate([np.array(ids, dtype=np.int64) for ids in texts]),
        "position_ids": np.concatenate([np.arange(past, past + length, dtype=np.int64) for length in lengths]),
        "max_context_len": np.array(past + max(lengths), dtype=np.int32),
        "past_lens": np.full(len(texts), past, dtype=np.int32),
        "subsequence_begins": np.cumsum([0, *lengths], dtype=np.int32),
        "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
        "block_indices": np.concatenate([np.array(table, dtype=np.int32) for table in tables]),
    }
    made: Hidden = request.infer(inputs)[0].copy()
    return made


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def _packs(indices: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts that fit into one pass together, by length so that few passes are needed."""
    pack: list[int] = []
    tokens = 0
    for index in sorted(indices, key=lambda index: lengths[index]):
        if pack and tokens + lengths[index] > SLICE_TOKENS:
            yield pack
            pack, tokens = [], 0
        pack.append(index)
        tokens += lengths[index]
    if pack:
        yield pack


def _scores(columns: list[NDArray[Any]], top_k: int) -> Scores:
    """Moves what each position says of the next token to that token's own row."""
    logprobs, ranks, entropies, top, top_ids = columns
    order = np.argsort(-top, axis=1, kind="stable")[:, :top_k]
    return Scores(
        logprobs=_shifted(logprobs[:, 0], np.nan, np.float32),
        ranks=_shifted(ranks + 1, 0, np.int32),
        entropies=_shifted(entropies, np.nan, np.float32),
        top_ids=_shifted(np.take_along_axis(top_ids, order, 1), -1, np.int32),
        top_logprobs=_shifted(np.take_along_axis(top, order, 1), np.nan, np.float32),
    )


def _shifted(column: NDArray[Any], first: float, kind: type) -> NDArray[Any]:
    out: NDArray[Any] = np.empty_like(column, dtype=kind)
    out[0] = first
    out[1:] = column[:-1]
    return out

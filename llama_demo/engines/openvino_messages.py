"""What the OpenVINO engines and their processes say to each other: plain values, pickled over a pipe."""

from __future__ import annotations

from typing import NamedTuple

from llama_demo.values import FinishReason, Token

BLOCK_TOKENS = 32
"""Tokens in a block of OpenVINO's KV cache on the CPU."""


class Load(NamedTuple):
    """Opens a model for generation. `kv_blocks` of the cache hold `BLOCK_TOKENS` tokens each."""

    path: str
    kv_blocks: int
    eos_ids: tuple[int, ...]
    reproducible: bool


class Loaded(NamedTuple):
    """`process_bytes`: what the process takes once warm, its cache still empty; `cache_bytes`: the cache when full."""

    process_bytes: int
    cache_bytes: int


class Add(NamedTuple):
    """A new request; `settings` are the fields of OpenVINO's `GenerationConfig`."""

    request: int
    ids: tuple[int, ...]
    settings: dict[str, float | int | bool]


class Cancel(NamedTuple):
    request: int


class Cancelled(NamedTuple):
    """The request will take part in no step from here on."""

    request: int


class Refused(NamedTuple):
    """The request could not be taken, or not be continued."""

    request: int
    problem: str


class Progress(NamedTuple):
    """One request's share of a step. `end` is the end token, where it is the one that ended it."""

    request: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason | None
    end: Token | None


class Step(NamedTuple):
    """Everything one step made. `cache_used` is the share of the KV cache that requests in flight hold."""

    progress: list[Progress]
    cache_used: float


def exact_properties(reproducible: bool) -> dict[str, str | int]:
    """The compile properties of a profile.

    Reproducible: without all three of them rounding depends on who shares a step, and a seeded text parts from its solo
    run after some 40 tokens.
    """
    if not reproducible:
        return {}
    return {
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
    }


def scoring_properties(reproducible: bool) -> dict[str, str | int]:
    """The same for scores and features, whose numbers people compare: in either profile they and the cache are float32.

    It costs next to no time, as matrices are most of it, and the likeliest token is another one than in exact
    arithmetic half as often.
    """
    properties = exact_properties(True)
    if not reproducible:
        del properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"]
    return properties


class LoadGraph(NamedTuple):
    """Opens a model for scores and features. `graph_folder` keeps what is made of the GGUF file for it."""

    path: str
    graph_folder: str
    reproducible: bool


class ScoreIds(NamedTuple):
    call: int
    ids: tuple[int, ...]
    top_k: int


class ScoreEndings(NamedTuple):
    call: int
    prompts: tuple[tuple[int, ...], ...]
    endings: tuple[tuple[int, ...], ...]


class EmbedIds(NamedTuple):
    call: int
    batch: tuple[tuple[int, ...], ...]


class Answer(NamedTuple):
    """`value`: the `Scores`, or the array of log-probabilities or of features."""

    call: int
    value: object

"""A Llama's numbers counted by part, and how its attention heads share keys and values: all from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the model: all layers' attention, and so on. `each` is one layer's, 0 for what no layer has."""

    name: Literal["embedding", "attention", "feed_forward", "norms", "head"]
    count: int
    each: int = 0


@dataclass(frozen=True, slots=True)
class Attention:
    """`kv_heads` below `heads` is grouped-query attention: each key-value head serves `heads // kv_heads` queries."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def kv_numbers_per_token(self) -> int:
        """2 x layers x KV heads x head size: a key and a value for every layer and KV head."""
        return 2 * self.layers * self.kv_heads * self.head_size


def attention_of(config: Mapping[str, Any]) -> Attention:
    heads = int(config["num_attention_heads"])
    return Attention(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
    )


def count_parameters(config: Mapping[str, Any]) -> tuple[Part, ...]:
    """Every number of the model once: an output head that is tied to the embedding has none of its own."""
    hidden, rows, layers = int(config["hidden_size"]), int(config["vocab_size"]), int(config["num_hidden_layers"])
    attention, feed_forward = _attention(config), _feed_forward(config)
    return (
        Part("embedding", rows * hidden),
        Part("attention", layers * attention, attention),
        Part("feed_forward", layers * feed_forward, feed_forward),
        Part("norms", layers * 2 * hidden + hidden, 2 * hidden),
        Part("head", 0 if config.get("tie_word_embeddings") else rows * hidden),
    )


def layer_parameters(config: Mapping[str, Any]) -> int:
    """Of one layer: attention, feed-forward network, two norms."""
    return _attention(config) + _feed_forward(config) + 2 * int(config["hidden_size"])


def _attention(config: Mapping[str, Any]) -> int:
    shape, hidden = attention_of(config), int(config["hidden_size"])
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    biases = queries + 2 * keys + hidden if config.get("attention_bias") else 0
    return 2 * hidden * queries + 2 * hidden * keys + biases


def _feed_forward(config: Mapping[str, Any]) -> int:
    hidden, wide = int(config["hidden_size"]), int(config["intermediate_size"])
    return 3 * hidden * wide + (2 * wide + hidden if config.get("mlp_bias") else 0)

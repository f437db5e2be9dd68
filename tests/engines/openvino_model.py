"""The embedded model as OpenVINO may be given it, made once a test run, and requests to it in a line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from llama_demo.checkpoints.gguf_requantize import requantize
from llama_demo.engines.openvino import OpenVINOEngine
from llama_demo.engines.stream import TokenStream
from llama_demo.values import Sampling, Token

EOS_ID = 2
PROMPT = tuple(range(1000, 1040))
GREEDY = Sampling(max_new_tokens=40, temperature=0.0)
SEEDED = Sampling(max_new_tokens=40, temperature=1.0, top_p=1.0, top_k=0, seed=7)


@cache
def q8_0(source: Path, folder: Path) -> Path:
    """`source` requantised, in `folder`."""
    target = folder / "embedded-q8_0.gguf"
    requantize(source, target)
    return target


def start(path: Path, **changes: object) -> OpenVINOEngine:
    """An engine for a test, with what the test cares about changed."""
    settings: dict[str, object] = {
        "name": "embedded",
        "eos_ids": {EOS_ID},
        "context_tokens": 1024,
        "cache_bytes": 200_000_000,
        "reproducible": False,
        **changes,
    }
    return OpenVINOEngine(path, **settings)  # type: ignore[arg-type]


def ids_of(tokens: Sequence[Token] | TokenStream) -> list[int]:
    return [token.id for token in tokens]

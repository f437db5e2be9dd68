"""A tiny model as the registry would hand it out, and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_demo.engines.transformers import TransformersEngine
from llama_demo.limits import Limits
from llama_demo.loading import LoadedModel
from tests import tiny
from tests.scripted import loaded


@pytest.fixture
def limits() -> Limits:
    return Limits(1000, 100, tiny.CONTEXT_TOKENS)


@pytest.fixture(scope="package")
def tiny_loaded(tiny_folder: Path) -> Iterator[LoadedModel]:
    """In float32."""
    engine = TransformersEngine(
        tiny_folder, name="tiny", eos_ids=(), context_tokens=tiny.CONTEXT_TOKENS, reproducible=True
    )
    yield loaded(engine, tiny_folder)
    engine.close()

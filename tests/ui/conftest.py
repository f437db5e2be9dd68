"""A whole runtime on the tests' own model, for the handlers that classify."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings


@pytest.fixture(scope="module")
def runtime(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    cache = tmp_path_factory.mktemp("cache")
    given = {"model": str(tiny_folder), "cache_dir": str(cache), "reproducible": "true", "memory_gb": "2"}
    with Runtime(read_settings(given, {})) as made:
        yield made

"""One running app for the tests of the HTTP API: the real page and routes, and a tiny model in float32 behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from llama_demo import ui
from llama_demo.api import routes
from llama_demo.api.gate import gates
from llama_demo.checkpoints.gguf import write_gguf
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.ui.tools import offer_tools
from llama_demo.values import ModelState

MODEL = "tiny-llama"


class Served:
    """The runtime, and where programs find it."""

    def __init__(self, runtime: Runtime, address: str) -> None:
        self.runtime = runtime
        self.address = address
        self.v1 = f"{address}/v1"

    def active(self) -> int:
        """How many leases of the model are held now."""
        return self.runtime.registry.status(MODEL).leases


@contextmanager
def launched(runtime: Any) -> Iterator[str]:
    """The address of the page with the API beside it."""
    page = ui.build(runtime)
    page.launch(
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        mcp_server=True,
        app_kwargs={"routes": routes(runtime), "middleware": gates(runtime)},
        **ui.launch_options(runtime),
    )
    offer_tools(page)
    yield page.local_url.rstrip("/")
    page.close(verbose=False)


def serve(settings: Settings) -> Iterator[Served]:
    """The app as it is served, with its model loaded; closed afterwards."""
    with Runtime(settings) as runtime:
        with runtime.registry.lease(runtime.default_model) as loaded:
            assert loaded.healthy
        with launched(runtime) as address:
            assert runtime.registry.status(MODEL).state is ModelState.READY
            yield Served(runtime, address)


@pytest.fixture(scope="session")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cache = tmp_path_factory.mktemp("api-cache")
    yield from serve(Settings(model=str(tiny_folder), reproducible=True, cache_dir=cache))


@pytest.fixture(scope="session")
def served_by_openvino(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same model as a GGUF file."""
    folder = tmp_path_factory.mktemp("openvino")
    file = folder / f"{MODEL}.gguf"
    write_gguf(tiny_folder, file, to="f16")
    yield from serve(Settings(model=str(file), reproducible=True, cache_dir=folder / "cache"))


@pytest.fixture(scope="session")
def client(served: Served) -> Any:
    return OpenAI(base_url=served.v1, api_key="none needed", max_retries=0, timeout=60)

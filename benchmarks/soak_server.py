"""The app with two doors more, for `soak` alone: how far the model's cache has filled, and unloading it.

It loads nothing by itself, so that the page's own memory can be taken first.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from llama_demo import api, ui
from llama_demo.checkpoints.gguf import read_header
from llama_demo.devices import CPU
from llama_demo.engines.openvino import OpenVINOEngine, kv_block_bytes
from llama_demo.loading import Loader
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState

POLL_SECONDS = 0.1


def routes(runtime: Runtime) -> list[BaseRoute]:
    name = runtime.default_model

    async def cache(_: Request) -> JSONResponse:
        with runtime.registry.lease(name) as loaded:
            assert isinstance(loaded.engine, OpenVINOEngine), "the embedded model runs on OpenVINO"
            stats = loaded.engine.stats()
        return JSONResponse({"blocks": cache_blocks(runtime), "tokens": stats.tokens, "engine": loaded.engine.pid})

    async def unload(_: Request) -> JSONResponse:
        runtime.registry.unload(name)
        while runtime.registry.status(name).state is not ModelState.ABSENT:
            await asyncio.sleep(POLL_SECONDS)
        return JSONResponse({})

    return [Route("/soak/cache", cache), Route("/soak/unload", unload, methods=["POST"]), *api.routes(runtime)]


def cache_blocks(runtime: Runtime) -> int:
    """How many blocks the engine's KV cache holds."""
    plan = Loader(runtime.settings, runtime.catalog, {CPU: runtime.budget_bytes}).plan(runtime.default_model)
    header = read_header(next(runtime.settings.cache_dir.rglob("*.gguf")))
    return plan.cache_bytes // kv_block_bytes(header, reproducible=runtime.settings.reproducible)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("cache", type=Path)
    given = parser.parse_args()
    with Runtime(Settings(port=given.port, cache_dir=given.cache)) as runtime:
        page = ui.build(runtime)
        page.launch(
            server_name=runtime.settings.host,
            server_port=given.port,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"routes": routes(runtime)},
            **ui.launch_options(runtime),
        )
        threading.Event().wait()


if __name__ == "__main__":
    main()

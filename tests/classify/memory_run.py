"""A process that chats, then classifies, then unloads, and prints what memory that took: `MODEL CACHE`, both folders;
MODEL empty for the embedded one."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import psutil

from llama_demo.classify.labels import labels_from
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.loading import ANALYSIS
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.values import ModelState, Sampling, Turn
from tests.classify.test_service import EXAMPLES

WAIT_SECONDS = 60


def last(updates: AsyncGenerator[Any, None]) -> Any:
    async def read() -> Any:
        async with aclosing(updates):
            return [update async for update in updates][-1]

    return asyncio.run(read())


def look(runtime: Runtime) -> dict[str, Any]:
    """The registry's figures and the processes' own."""
    process, memory = psutil.Process(), runtime.memory()[0]
    return {
        "own": process.memory_info().rss,
        "children": {child.pid: child.memory_info().rss for child in process.children(recursive=True)},
        "used": memory.used_bytes,
        "holders": {holder.name: holder.bytes for holder in memory.holders},
        "analyses": [holder.name for holder in memory.holders if holder.is_analysis],
    }


def wait_until_unloaded(runtime: Runtime, name: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while runtime.registry.status(name).state is not ModelState.ABSENT and time.monotonic() < until:
        time.sleep(0.01)


def main(model: str, cache: str) -> None:
    import sklearn.linear_model  # noqa: F401 - a library's own code is no model's memory

    given = {"model": model, "cache_dir": cache, "context_tokens": "1024", "memory_gb": "4"}
    with Runtime(read_settings({name: value for name, value in given.items() if value}, {})) as runtime:
        name, service = runtime.default_model, runtime.classification
        sampling = Sampling(max_new_tokens=40)
        for _ in range(3):
            last(runtime.generation.chat([Turn("user", "Where do the boats go?")], model=name, sampling=sampling))
        stages = {"chat": look(runtime)}
        labels = ZeroShot(labels_from(["sea", "land"]))
        for number in range(3):
            texts = [f"{example['text']} {number} {place}" for place, example in enumerate(EXAMPLES[::4])]
            last(service.classify(texts, labels, model=name))
            last(service.train(EXAMPLES[::2], f"head {number}", model=name))
            last(service.classify(texts, f"head {number}"))
        stages["classified"] = look(runtime)
        runtime.management.unload(name + ANALYSIS)
        wait_until_unloaded(runtime, name + ANALYSIS)
        stages["unloaded"] = look(runtime)
        sys.stdout.write(json.dumps(stages))


if __name__ == "__main__":
    main(*sys.argv[1:])

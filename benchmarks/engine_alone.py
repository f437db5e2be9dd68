"""The app's own engine without the page, in a process of its own: `python -m benchmarks.engine_alone CACHE_FOLDER`.

Set up by the app's composition root, so that it runs as it does behind the page; prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.conversation import next_turn
from benchmarks.workload import CROWDS, NEW_TOKENS, rounds_for
from llama_demo import bench, prompts
from llama_demo.bench_client import Ask
from llama_demo.detokenize import PieceStream
from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Sampling, turns_from

READ_SECONDS = 1.0


class EngineClient:
    """`bench_client.ReplyClient` straight to a loaded engine: every token is an update."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    async def stream(self, ask: Ask) -> AsyncIterator[str]:
        prompt = prompts.render(self._loaded.tokenizer, turns_from(ask.history, ask.message))
        stream = self._loaded.engine.generate(
            prompt.ids, Sampling(max_new_tokens=ask.max_new_tokens, temperature=0.0, top_p=1.0, top_k=0)
        )
        pieces, text = PieceStream(self._loaded.tokenizer), ""
        while not stream.drained:
            text += pieces.add([token.id for token in await stream.read(READ_SECONDS)])
            yield text
        yield text


async def measure(loaded: LoadedModel, visitors: Sequence[int], new_tokens: int, repeats: int) -> dict[str, object]:
    client = EngineClient(loaded)

    def count(text: str) -> int:
        return len(loaded.tokenizer.encode(text))

    reports, first = [], 0
    for crowd in visitors:
        rounds = rounds_for(crowd)
        plan = bench.BenchPlan("http://localhost", crowd, rounds, new_tokens, first_prompt=first)
        first += crowd * rounds
        measured, wall_seconds = await bench.visits(client, plan.asks(), plan.timeout_seconds)
        reports.append(bench.summarise(measured, wall_seconds, count).public())
    return {"reports": reports, "next_turn": asdict(await next_turn(client, count, repeats, first))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="the folder for the converted model")
    parser.add_argument("--visitors", type=int, nargs="+", default=CROWDS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--repeats", type=int, default=5, help="conversations, for the cost of a next turn")
    given = parser.parse_args()
    with Runtime(Settings(cache_dir=given.cache)) as runtime, runtime.registry.lease(runtime.default_model) as loaded:
        result = asyncio.run(measure(loaded, given.visitors, given.new_tokens, given.repeats))
    print(json.dumps(result))


if __name__ == "__main__":
    main()

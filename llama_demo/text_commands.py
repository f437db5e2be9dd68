"""The commands `generate` and `score`: one text from an argument or a pipe to stdout, or a file of texts to another.

It knows no engine: the runtime is asked as the page asks it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, fields, replace
from typing import Any

from llama_demo.file_command import OWNER, given_text, number, quiet_runtime, work_through
from llama_demo.leasing import Stopper, result_of
from llama_demo.messages import Messages
from llama_demo.settings import Settings
from llama_demo.text_files import completing, scoring
from llama_demo.values import Completion, CompletionRequest, Sampling, ScoredText, ScoredToken

_SCORE_FIGURES = ("logprob", "rank", "entropy")


def generate(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    """Continues a text, or every text of a file. Returns the exit status."""
    sampling = Sampling(**_given_sampling(parsed))
    stops = tuple(stop.replace("\\n", "\n") for stop in parsed.stop)
    request = CompletionRequest(
        given_text(parsed), sampling, stops, number(parsed.n), as_chat=parsed.as_chat, trim=parsed.trim
    )
    longest = max(settings.max_new_tokens, sampling.max_new_tokens)
    with quiet_runtime(replace(settings, max_new_tokens=longest)) as runtime:
        if parsed.input is not None:
            task = completing(runtime.generation, runtime.default_model, request, OWNER)
            return work_through(parsed, task, words, max(1, settings.concurrent // request.n))
        updates = runtime.generation.complete(request, model=runtime.default_model, stopper=Stopper(OWNER))
        completion = asyncio.run(_stream(updates, show=not parsed.json and request.n == 1))
    if completion.trimmed_tokens:
        print(words("text.trimmed", count=completion.trimmed_tokens), file=sys.stderr)
    if parsed.json:
        print(json.dumps(_public(completion), indent=2, ensure_ascii=False))
    elif request.n > 1:
        for place, one in enumerate(completion.continuations, start=1):
            print(words("cli.alternative", number=place, seed=one.seed), one.text, sep="\n")
    return 0


def score(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    """Shows what the model thinks of each token of a text, or of every text of a file. Returns the exit status."""
    top_k, text = number(parsed.top_k), given_text(parsed)
    with quiet_runtime(settings) as runtime:
        if parsed.input is not None:
            return work_through(parsed, scoring(runtime.generation, runtime.default_model, OWNER), words, 1)
        scored = asyncio.run(
            result_of(
                runtime.generation.score(text, model=runtime.default_model, top_k=top_k, stopper=Stopper(OWNER)),
                ScoredText,
            )
        )
    if parsed.json:
        print(json.dumps(_plain(asdict(scored)), indent=2, ensure_ascii=False))
        return 0
    names = [words("cli.score_token"), *(words(f"cli.score_{name}") for name in _SCORE_FIGURES)]
    rows = [names, *(_cells(token) for token in scored.tokens)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(names))]
    for token, *figures in rows:
        shown = (figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True))
        print(f"{token.ljust(widths[0])}  {'  '.join(shown)}")
    if scored.perplexity is not None:
        print(words("cli.perplexity", perplexity=f"{scored.perplexity:.3f}"))
    return 0


def _given_sampling(parsed: argparse.Namespace) -> dict[str, Any]:
    values = {field.name: getattr(parsed, f"sampling_{field.name}") for field in fields(Sampling)}
    return {name: number(text) for name, text in values.items() if text is not None}


async def _stream(updates: AsyncGenerator[Any, None], *, show: bool) -> Completion:
    """The finished completion; its one text is printed as it grows."""
    completion: Completion | None = None
    printed = 0
    async with aclosing(updates):
        async for update in updates:
            if not isinstance(update, Completion):
                continue
            completion = update
            if show:
                text = update.continuations[0].text
                print(text[printed:], end="", flush=True)
                printed = len(text)
    assert completion is not None
    if show:
        print()
    return completion


def _public(completion: Completion) -> dict[str, Any]:
    """What `--json` prints: without the ids, which are for programs that have the model."""
    made = [
        {"text": one.text, "finish": one.finish, "seed": one.seed, "tokens": one.new_tokens}
        for one in completion.continuations
    ]
    return {
        "model": completion.model,
        "prompt": completion.prompt,
        "prompt_tokens": completion.prompt_tokens,
        "trimmed_tokens": completion.trimmed_tokens,
        "continuations": made,
    }


def _plain(value: Any) -> Any:
    """`value` without the tokens' raw bytes, for which JSON has no kind."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if name != "raw"}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _cells(token: ScoredToken) -> list[str]:
    figures = [
        "" if token.logprob is None else f"{token.logprob:.4f}",
        "" if token.rank is None else str(token.rank),
        "" if token.entropy is None else f"{token.entropy:.4f}",
    ]
    return [json.dumps(token.token, ensure_ascii=False), *figures]

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

from llama_demo.batch import BatchProgress
from llama_demo.errors import InvalidSetting, NotUtf8
from llama_demo.leasing import Stopper
from llama_demo.messages import Messages
from llama_demo.observe import LOG
from llama_demo.progress_line import ProgressLine
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.tables import open_table
from llama_demo.text_files import TextTask, check_file, completing, run_file, scoring
from llama_demo.values import Completion, CompletionRequest, Sampling, ScoredText, ScoredToken
from llama_demo.visitors import Role, Visitor

OWNER = Visitor("", Role.OWNER)
"""Limits are for visitors; here is the machine's owner."""
_SCORE_FIGURES = ("logprob", "rank", "entropy")


def generate(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    """Continues a text, or every text of a file. Returns the exit status."""
    sampling = Sampling(**_given_sampling(parsed))
    stops = tuple(stop.replace("\\n", "\n") for stop in parsed.stop)
    request = CompletionRequest(
        _text(parsed), sampling, stops, _number(parsed.n), as_chat=parsed.as_chat, trim=parsed.trim
    )
    longest = max(settings.max_new_tokens, sampling.max_new_tokens)
    with _runtime(replace(settings, max_new_tokens=longest)) as runtime:
        if parsed.input is not None:
            task = completing(runtime.generation, runtime.default_model, request, OWNER)
            return _file(parsed, task, words, max(1, settings.concurrent // request.n))
        updates = runtime.generation.complete(request, model=runtime.default_model, stopper=Stopper(OWNER))
        completion = asyncio.run(_stream(updates, show=not parsed.json and request.n == 1))
    if completion.trimmed_tokens:
        print(words("text.trimmed", count=completion.trimmed_tokens), file=sys.stderr)
    if parsed.json:
        print(json.dumps(_public(completion), indent=2, ensure_ascii=False))
    elif request.n > 1:
        for number, one in enumerate(completion.continuations, start=1):
            print(words("cli.alternative", number=number, seed=one.seed), one.text, sep="\n")
    return 0


def score(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    """Shows what the model thinks of each token of a text, or of every text of a file. Returns the exit status."""
    top_k, text = _number(parsed.top_k), _text(parsed)
    with _runtime(settings) as runtime:
        if parsed.input is not None:
            return _file(parsed, scoring(runtime.generation, runtime.default_model, OWNER), words, 1)
        scored = asyncio.run(
            _scored(runtime.generation.score(text, model=runtime.default_model, top_k=top_k, stopper=Stopper(OWNER)))
        )
    if parsed.json:
        print(json.dumps(asdict(scored), indent=2, ensure_ascii=False))
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


def _text(parsed: argparse.Namespace) -> str:
    """The text to work on; empty where there is a file. Raises `InvalidSetting` for arguments that do not agree."""
    if parsed.input is not None:
        if parsed.text is not None:
            raise InvalidSetting("--input", str(parsed.input), "left out where a text is given")
        if parsed.output is None:
            raise InvalidSetting("--output", "missing", "the name of a file to write, where --input is given")
        return ""
    if parsed.output is not None:
        raise InvalidSetting("--output", str(parsed.output), "left out where no --input is given")
    if parsed.text is not None:
        return str(parsed.text)
    if sys.stdin.isatty():
        raise InvalidSetting("the text", "missing", "an argument, or piped in, or a file given by --input")
    return _piped(sys.stdin.buffer.read())


def _piped(data: bytes) -> str:
    """A pipe's text without the line end that the shell's commands put after it. Raises `NotUtf8`."""
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise NotUtf8("stdin", data.count(b"\n", 0, error.start) + 1, error.start + 1) from None


def _given_sampling(parsed: argparse.Namespace) -> dict[str, Any]:
    values = {field.name: getattr(parsed, f"sampling_{field.name}") for field in fields(Sampling)}
    return {name: _number(text) for name, text in values.items() if text is not None}


def _number(text: str) -> Any:
    """`text` as a number where it is one; else itself, which is refused by name where it is checked."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _runtime(settings: Settings) -> Runtime:
    LOG.setLevel("WARNING")  # stderr is for what went wrong
    return Runtime(replace(settings, message_characters=sys.maxsize))


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


async def _scored(updates: AsyncGenerator[Any, None]) -> ScoredText:
    async with aclosing(updates):
        async for update in updates:
            if isinstance(update, ScoredText):
                return update
    raise AssertionError("nobody stopped it")


def _public(completion: Completion) -> dict[str, Any]:
    """What `--json` prints: without the ids, which are for programs that have the model."""
    made = [
        {"text": one.text, "finish": one.finish, "seed": one.seed, "tokens": len(one.ids)}
        for one in completion.continuations
    ]
    return {
        "model": completion.model,
        "prompt": completion.prompt,
        "prompt_tokens": len(completion.prompt_ids),
        "trimmed_tokens": completion.trimmed_tokens,
        "continuations": made,
    }


def _cells(token: ScoredToken) -> list[str]:
    figures = [
        "" if token.logprob is None else f"{token.logprob:.4f}",
        "" if token.rank is None else str(token.rank),
        "" if token.entropy is None else f"{token.entropy:.4f}",
    ]
    return [json.dumps(token.token, ensure_ascii=False), *figures]


def _file(parsed: argparse.Namespace, task: TextTask, words: Messages, window: int) -> int:
    """Does `task` with every row of the input. Returns the exit status; Ctrl-C leaves whole rows, as anything does."""
    table = open_table(parsed.input)
    total = check_file(table, parsed.column, task)
    steps = run_file(table, parsed.column, parsed.output, task, total=total, window=window, worded=words.error)
    watch = _Watch(words)
    try:
        asyncio.run(watch.read(steps))
    except KeyboardInterrupt:
        print(words("cli.file_stopped", done=watch.last.done, total=total, output=parsed.output), file=sys.stderr)
        raise
    figures = {"rows": watch.last.done, "failed": watch.last.failed, "output": str(parsed.output)}
    print(json.dumps(figures) if parsed.json else words("cli.file_done", **figures))
    return 0


class _Watch:
    """Shows how far a file is, and keeps the `last` it heard."""

    def __init__(self, words: Messages) -> None:
        self._words = words
        self.last = BatchProgress(0, 0, 0)

    async def read(self, steps: AsyncGenerator[BatchProgress, None]) -> None:
        with ProgressLine(self._line) as line:
            async with aclosing(steps):
                async for self.last in steps:
                    line.report(self.last.done, self.last.total)

    def _line(self, done: int, total: int, _: float) -> str:
        return self._words("cli.file_progress", done=done, total=total, failed=self.last.failed)

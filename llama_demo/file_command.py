"""What the commands that take texts have in common: a text from an argument or a pipe, and a file worked through with
its progress on stderr."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from llama_demo.batch import BatchProgress
from llama_demo.errors import InvalidSetting, NotUtf8
from llama_demo.messages import Messages
from llama_demo.observe import LOG
from llama_demo.progress_line import ProgressLine
from llama_demo.reasons import Reason
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.tables import open_table
from llama_demo.text_files import TextTask, check_file, run_file
from llama_demo.visitors import Role, Visitor

OWNER = Visitor("", Role.OWNER)
"""Limits are for visitors; here is the machine's owner."""


def given_text(parsed: argparse.Namespace) -> str:
    """The text to work on; empty where there is a file. Raises `InvalidSetting` for arguments that do not agree."""
    if parsed.input is not None:
        if parsed.text is not None:
            raise InvalidSetting("--input", str(parsed.input), Reason("expected.text_or_input"))
        if parsed.output is None:
            raise InvalidSetting("--output", "missing", Reason("expected.output_of_input"))
        return ""
    if parsed.output is not None:
        raise InvalidSetting("--output", str(parsed.output), Reason("expected.output_without_input"))
    if parsed.text is not None:
        return str(parsed.text)
    if sys.stdin.isatty():
        raise InvalidSetting("the text", "missing", Reason("expected.text_from_somewhere"))
    return _piped(sys.stdin.buffer.read())


def _piped(data: bytes) -> str:
    """A pipe's text without the line end that the shell's commands put after it. Raises `NotUtf8`."""
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise NotUtf8("stdin", data.count(b"\n", 0, error.start) + 1, error.start + 1) from None


def number(text: str) -> Any:
    """`text` as a number where it is one; else itself, which is refused by name where it is checked."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def quiet_runtime(settings: Settings) -> Runtime:
    LOG.setLevel("WARNING")  # stderr is for what went wrong
    return Runtime(replace(settings, message_characters=sys.maxsize))


def work_through(
    parsed: argparse.Namespace,
    task: TextTask,
    words: Messages,
    window: int,
    finished: Callable[[], Mapping[str, Any]] = dict,
) -> int:
    """Does `task` with every row of the input. Returns the exit status; Ctrl-C leaves whole rows, as anything does.
    `finished` gives what `--json` prints of the whole beside the figures."""
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
    more = finished()
    print(json.dumps({**figures, **more}) if parsed.json else words("cli.file_done", **figures))
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

"""A file of texts in, the same with the model's completions or perplexities out: what is done with one of its rows.

It knows no command line and no page, and leaves the reading, the writing and the order to `batch`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from llama_demo.batch import BatchProgress, run_batch
from llama_demo.errors import (
    Busy,
    EmptyMessage,
    EngineCrashed,
    ForgedTurn,
    InvalidUnicode,
    MessageTooLong,
    PromptTooLong,
)
from llama_demo.generation import Generation
from llama_demo.leasing import Stopper, result_of
from llama_demo.table_output import ERROR, Output
from llama_demo.tables import Row, Table, Value, check_table, text_of
from llama_demo.values import Completion, CompletionRequest, Sampling, ScoredText
from llama_demo.visitor_errors import TookTooLong, TooManyRequests
from llama_demo.visitors import Visitor

OWN_ERRORS = (EmptyMessage, EngineCrashed, ForgedTurn, InvalidUnicode, MessageTooLong, PromptTooLong, TookTooLong)
"""What is a row's own fault, or may be; anything else would befall every other row too."""
_ATTEMPTS = 3
_BUSY_SECONDS = 1.0
_SETTINGS_CHARACTERS = 300

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextTask:
    """What to do with a file: `of` gives a text's values for the columns `made`. `fixed` are columns that say what the
    rows are from, the model and the settings: others must not go on with the file."""

    fixed: Mapping[str, Value]
    made: tuple[str, ...]
    of: Callable[[str], Awaitable[Mapping[str, Value]]]

    @property
    def added(self) -> tuple[str, ...]:
        """Every column that the output has and the input must not have."""
        return (*self.fixed, *self.made, ERROR)


def settings_said(values: Mapping[str, object]) -> str:
    """Settings as one short text, the same for the same values only; empty where there are none."""
    if not values:
        return ""
    text = json.dumps(values, ensure_ascii=False)
    if len(text) <= _SETTINGS_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[:_SETTINGS_CHARACTERS]}... ({digest})"


def completing(generation: Generation, model: str, request: CompletionRequest, visitor: Visitor) -> TextTask:
    """Completions as `request` asks for them, but of each row's own text."""
    names = [""] if request.n == 1 else [f"_{number + 1}" for number in range(request.n)]

    async def of(text: str) -> Mapping[str, Value]:
        wanted = replace(request, prompt=text)
        completion = await result_of(generation.complete(wanted, model=model, stopper=Stopper(visitor)), Completion)
        made: dict[str, Value] = {}
        for name, continuation in zip(names, completion.continuations, strict=True):
            made[f"completion{name}"] = continuation.text
            made[f"finish{name}"] = continuation.finish
        return made

    made = tuple(f"{column}{name}" for name in names for column in ("completion", "finish"))
    return TextTask({"model": model, "settings": settings_said(_chosen(request))}, made, of)


def _chosen(request: CompletionRequest) -> Mapping[str, object]:
    """What is asked for beside the text, as far as it is not what it is for everybody."""
    usual = asdict(CompletionRequest("", Sampling()))
    sampling, others = asdict(request.sampling), {**asdict(request), "prompt": "", "sampling": None}
    chosen = {name: value for name, value in sampling.items() if value != usual["sampling"][name]}
    return chosen | {name: value for name, value in others.items() if value not in (None, usual[name])}


def scoring(generation: Generation, model: str, visitor: Visitor) -> TextTask:
    """Each row's perplexity, and how many tokens it has."""

    async def of(text: str) -> Mapping[str, Value]:
        score = await result_of(generation.score(text, model=model, top_k=1, stopper=Stopper(visitor)), ScoredText)
        return {"perplexity": score.perplexity, "tokens": len(score.tokens)}

    return TextTask({"model": model}, ("perplexity", "tokens"), of)


def check_file(
    table: Table, column: str, task: TextTask, *, rows: int | None = None, size_bytes: int | None = None
) -> int:
    """The number of rows; raises as `check_table`."""
    return check_table(table, column, added=task.added, rows=rows, size_bytes=size_bytes)


async def run_file(
    table: Table,
    column: str,
    output: Path,
    task: TextTask,
    *,
    total: int,
    window: int,
    worded: Callable[[Exception], str],
    title: str = "",
) -> AsyncGenerator[BatchProgress, None]:
    """Does `task` with every row of `table`, which has `total` rows, that `output` lacks; see `run_batch`."""
    alone = asyncio.Lock()

    async def work(row: Row) -> Mapping[str, Value]:
        return await _patiently(lambda: task.of(text_of(table, row, column)), alone)

    opened = await asyncio.to_thread(
        Output, output, table, fixed=task.fixed, made=task.made, title=title or str(output)
    )
    with opened as file:
        progress = run_batch(file, work, total=total, window=window, own_errors=OWN_ERRORS, worded=worded)
        async with aclosing(progress) as steps:
            async for step in steps:
                yield step


async def _patiently(attempt: Callable[[], Awaitable[T]], alone: asyncio.Lock) -> T:
    """What `attempt` gives. Where the engine crashed, it is tried again, one row at a time: the row that makes it crash
    must not cost the others theirs. Where the server is busy, or the visitor's allowance used up, a file has time."""
    crashes = 0
    while True:
        try:
            if not crashes:
                return await attempt()
            async with alone:
                return await attempt()
        except EngineCrashed:
            crashes += 1
            if crashes == _ATTEMPTS:
                raise
        except (Busy, TooManyRequests):
            await asyncio.sleep(_BUSY_SECONDS)

"""Runs an async function over the rows that an output still lacks: some side by side, written in the input's order.

It knows neither models nor formats. Memory is that of the rows under way, however many the file has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from llama_demo.table_output import Output
from llama_demo.tables import Row, Value

UPDATE_SECONDS = 0.2
AHEAD = 4
"""So many times the window may be begun before the oldest row is done: one slow row must not leave the others idle."""

Work = Callable[[Row], Awaitable[Mapping[str, Value]]]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """`done` rows are in the output, `failed` of them with an error."""

    done: int
    failed: int
    total: int


async def run_batch(
    output: Output,
    work: Work,
    *,
    total: int,
    window: int,
    own_errors: tuple[type[Exception], ...],
    worded: Callable[[Exception], str],
) -> AsyncGenerator[BatchProgress, None]:
    """Appends every remaining row to `output` with what `work` makes of it, and tells how far it is.

    At most `window` rows are worked on at once. `own_errors` are a row's own and are written with it; any other ends
    the run, as closing the generator does. What was written then stays, and the next run goes on from there. While
    nothing happens the same progress comes again, so that whoever reads can leave.
    """
    begun: deque[tuple[Row, asyncio.Future[Mapping[str, Value]]]] = deque()

    def begin() -> None:
        """Rows are read as places for them become free."""
        waiting = sum(not task.done() for _, task in begun)
        while waiting < window and len(begun) < AHEAD * window and (row := next(output.remaining, None)) is not None:
            begun.append((row, asyncio.ensure_future(work(row))))
            waiting += 1

    try:
        yield BatchProgress(output.done, output.failed, total)
        begin()
        while begun:
            unfinished = [task for _, task in begun if not task.done()]
            if unfinished:
                await asyncio.wait(unfinished, timeout=UPDATE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            while begun and begun[0][1].done():
                row, task = begun.popleft()
                _write(output, row, task, own_errors, worded)
            begin()
            yield BatchProgress(output.done, output.failed, total)
    finally:
        for _, task in begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in begun), return_exceptions=True)


def _write(
    output: Output,
    row: Row,
    task: asyncio.Future[Mapping[str, Value]],
    own_errors: tuple[type[Exception], ...],
    worded: Callable[[Exception], str],
) -> None:
    try:
        made, problem = task.result(), ""
    except own_errors as error:
        made, problem = {}, worded(error)
    output.append(row, made, problem)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from llama_demo.batch import AHEAD, BatchProgress, Work, run_batch
from llama_demo.errors import BadTable, PromptTooLong
from llama_demo.table_output import Output
from llama_demo.tables import Row, Value, open_table


class Batch:
    """Runs over a file of numbers."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.source = folder / "in.csv"
        self.source.write_text("prompt\n" + "".join(f"{number}\n" for number in range(rows)), encoding="utf-8")
        self.out = folder / "out.csv"
        self.total = rows

    def run(
        self, work: Work, window: int = 4, until: Callable[[BatchProgress], bool] = lambda _: False
    ) -> list[BatchProgress]:
        """Every progress that was told, until the reader leaves."""

        async def read() -> list[BatchProgress]:
            told: list[BatchProgress] = []
            with Output(self.out, open_table(self.source), fixed={}, made=("completion",)) as output:
                progress = run_batch(
                    output, work, total=self.total, window=window, own_errors=(PromptTooLong,), worded=str
                )
                async with aclosing(progress) as steps:
                    async for step in steps:
                        told.append(step)
                        if until(step):
                            break
            return told

        return asyncio.run(read())

    def column(self, name: str) -> list[str]:
        return [row.values[name] for row in open_table(self.out).rows()]


async def same(row: Row) -> Mapping[str, Value]:
    return {"completion": row.values["prompt"]}


def test_rows_that_end_in_any_order_are_written_in_the_inputs(tmp_path: Path) -> None:
    batch = Batch(tmp_path, 40)
    begun: list[int] = []

    async def uneven(row: Row) -> Mapping[str, Value]:
        begun.append(row.number)
        for _ in range((row.number * 7) % 11):
            await asyncio.sleep(0)
        return await same(row)

    told = batch.run(uneven)
    assert begun == sorted(begun)
    assert batch.column("completion") == batch.column("prompt") == [str(number) for number in range(40)]
    assert told[0] == BatchProgress(0, 0, 40)
    assert told[-1] == BatchProgress(40, 0, 40)


def test_no_more_rows_are_under_way_than_the_window_and_none_is_read_long_before_its_turn(tmp_path: Path) -> None:
    batch = Batch(tmp_path, 100)
    active = most = 0
    first_may_end = asyncio.Event()
    ended: list[int] = []

    async def work(row: Row) -> Mapping[str, Value]:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if row.number == 1:
            await first_may_end.wait()
        await asyncio.sleep(0)
        active -= 1
        ended.append(row.number)
        return await same(row)

    told = 0

    def stalled(step: BatchProgress) -> bool:
        """The first row ends once nothing else has for as long as it takes to be told the same three times."""
        nonlocal told
        told = told + 1 if step.done == 0 and len(ended) == 3 * AHEAD - 1 else 0
        if told == 3:
            first_may_end.set()
        return len(ended) > 3 * AHEAD - 1 and not first_may_end.is_set()

    batch.run(work, window=3, until=stalled)
    assert most == 3
    assert ended.index(1) == 3 * AHEAD - 1
    assert batch.column("completion") == batch.column("prompt")


def test_a_row_that_fails_carries_its_error_and_loses_no_others(tmp_path: Path) -> None:
    batch = Batch(tmp_path, 10)

    async def work(row: Row) -> Mapping[str, Value]:
        if row.number == 4:
            raise PromptTooLong(9, 8)
        return await same(row)

    assert batch.run(work)[-1] == BatchProgress(10, 1, 10)
    assert batch.column("error")[3] == "PromptTooLong(tokens=9, limit=8)"
    assert [bool(text) for text in batch.column("completion")].count(True) == 9


def test_an_error_that_is_no_rows_own_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    batch = Batch(tmp_path, 10)
    worked: list[int] = []

    async def work(row: Row) -> Mapping[str, Value]:
        if row.number == 6 and 6 not in worked:
            worked.append(6)
            raise BadTable("x")
        worked.append(row.number)
        return await same(row)

    with pytest.raises(BadTable):
        batch.run(work)
    assert batch.column("completion") == ["0", "1", "2", "3", "4"]
    assert batch.run(work)[0] == BatchProgress(5, 0, 10)
    assert batch.column("completion") == batch.column("prompt")
    assert len(batch.column("prompt")) == 10
    assert worked.count(1) == 1


def test_whoever_leaves_stops_the_rows_under_way(tmp_path: Path) -> None:
    batch = Batch(tmp_path, 30)
    cancelled: list[int] = []

    async def work(row: Row) -> Mapping[str, Value]:
        try:
            await asyncio.sleep(0 if row.number <= 5 else 1_000)
        except asyncio.CancelledError:
            cancelled.append(row.number)
            raise
        return await same(row)

    batch.run(work, until=lambda step: step.done == 5)
    assert cancelled[:3] == [6, 7, 8]
    assert batch.column("completion") == ["0", "1", "2", "3", "4"]
    batch.run(same)
    assert batch.column("completion") == [str(number) for number in range(30)]


def test_progress_comes_again_while_nothing_happens_so_that_a_reader_can_leave(tmp_path: Path) -> None:
    async def never(row: Row) -> Mapping[str, Value]:
        await asyncio.sleep(1_000)
        return {}

    asked = 0

    def third(_: BatchProgress) -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    assert Batch(tmp_path, 5).run(never, until=third) == [BatchProgress(0, 0, 5)] * 3

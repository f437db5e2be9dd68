from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from llama_demo import text_files
from llama_demo.batch import BatchProgress
from llama_demo.errors import Busy, EngineCrashed, NoModel
from llama_demo.messages import messages
from llama_demo.tables import Value, open_table
from llama_demo.text_files import TextTask, run_file, settings_said
from llama_demo.visitor_errors import TooManyRequests
from tests.text_file_runs import rows_of, write_prompts


def outcome(folder: Path, of: Callable[[str], Mapping[str, Value]], rows: int = 6) -> BatchProgress:
    """How far a file of `rows` got, four side by side, where `of` says what is made of a text."""
    table = open_table(write_prompts(folder / "in.csv", rows))

    async def work(text: str) -> Mapping[str, Value]:
        await asyncio.sleep(0)
        return of(text)

    async def read() -> BatchProgress:
        task = TextTask({"model": "tiny"}, ("length",), work)
        steps = run_file(table, "prompt", folder / "out.csv", task, total=rows, window=4, worded=messages().error)
        return [step async for step in steps][-1]

    return asyncio.run(read())


def test_a_row_that_crashes_the_engine_is_tried_alone_and_costs_no_other_row_its_own(tmp_path: Path) -> None:
    """A crash befalls whoever is in the engine: here every row that was begun with the guilty one, once."""
    begun: list[str] = []

    def of(text: str) -> Mapping[str, Value]:
        begun.append(text)
        if "dog 2," in text or (begun.count(text) == 1 and any(f"dog {other}," in text for other in (1, 3))):
            raise EngineCrashed("tiny")
        return {"length": len(text)}

    assert outcome(tmp_path, of) == BatchProgress(6, 1, 6)
    assert [bool(row["error"]) for row in rows_of(tmp_path / "out.csv")] == [False, False, True, False, False, False]
    assert sum("dog 2," in text for text in begun) == 3


def test_a_busy_server_or_one_that_lets_a_visitor_wait_is_asked_again_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_BUSY_SECONDS", 0.0)
    refusals = iter(range(5))

    def of(text: str) -> Mapping[str, Value]:
        if (number := next(refusals, None)) is not None:
            raise Busy(9, 1.0) if number % 2 else TooManyRequests(1.0)
        return {"length": len(text)}

    assert outcome(tmp_path, of) == BatchProgress(6, 0, 6)
    assert all(row["length"] == str(len(row["prompt"])) for row in rows_of(tmp_path / "out.csv"))


def test_long_settings_are_shortened_and_still_told_apart() -> None:
    assert settings_said({}) == ""
    assert settings_said({"n": 2}) == '{"n": 2}'
    long = [settings_said({"instruction": "x" * 1000 + end}) for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(text) < 400 for text in long)


def test_what_would_befall_every_row_ends_the_run_with_the_rows_before_it(tmp_path: Path) -> None:
    def of(text: str) -> Mapping[str, Value]:
        if "dog 3," in text:
            raise NoModel("tiny", "a-package", "a/repository")
        return {"length": len(text)}

    with pytest.raises(NoModel):
        outcome(tmp_path, of)
    assert [row["id"] for row in rows_of(tmp_path / "out.csv")] == ["0", "1", "2"]

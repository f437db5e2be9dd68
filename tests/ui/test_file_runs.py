from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.errors import InvalidParameter
from llama_demo.messages import messages
from llama_demo.reasons import Reason
from llama_demo.tables import Value
from llama_demo.text_files import TextTask
from llama_demo.ui import file_runs
from llama_demo.ui.file_runs import FileRuns, FileView, Plan, Preview
from llama_demo.ui.text import file_plan
from llama_demo.visitors import Role, Visitor
from tests.text_file_runs import rows_of, write_prompts
from tests.ui.scripted import scripted

OWNER, STRANGER, OTHER = (
    Visitor("owner", Role.OWNER),
    Visitor("stranger", Role.ANONYMOUS),
    Visitor("other", Role.ANONYMOUS),
)
AGAIN = "With the same settings Run goes on from there, with others it begins anew."
Made = Callable[[str], Mapping[str, Value]]


def length(text: str) -> Mapping[str, Value]:
    return {"length": len(text)}


class Section:
    """A section whose task says how long a text is."""

    def __init__(self, folder: Path, made: Made = length) -> None:
        self.folder = folder
        self.kept: list[Path] = []
        self.runs = FileRuns(scripted(concurrent=8), folder / "results", self.kept.append)
        self.worked: list[str] = []
        self.made = made

    def plan(self, settings: str = "") -> Plan:
        async def of(text: str) -> Mapping[str, Value]:
            self.worked.append(text)
            await asyncio.sleep(0)
            return self.made(text)

        return Plan(TextTask({"model": "tiny", "settings": settings}, ("length",), of), 2)

    def run(
        self,
        path: Path,
        visitor: Visitor = OWNER,
        *,
        column: str = "prompt",
        settings: str = "",
        until: Callable[[FileView], bool] = lambda view: False,
    ) -> list[FileView]:
        """Every view, until the page that shows them is closed."""

        async def read() -> list[FileView]:
            seen = []
            views = self.runs.run(str(path), column, lambda: self.plan(settings), visitor, messages())
            async with aclosing(views):
                async for view in views:
                    seen.append(view)
                    if until(view):
                        break
            return seen

        return asyncio.run(read())


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Section:
    monkeypatch.setattr(file_runs, "_VIEW_SECONDS", 0.0)
    return Section(tmp_path)


def test_a_file_becomes_the_same_file_with_what_was_made_of_every_row(section: Section) -> None:
    views = section.run(write_prompts(section.folder / "in.csv", 40))
    last = views[-1]
    assert [view.running for view in views] == [True] * (len(views) - 1) + [False]
    assert last.result is not None
    assert last.result.name == "in-results.csv"
    assert (last.note, last.error, last.done, last.total) == ("Done: 40 rows.", "", 40, 40)
    assert [int(row["length"]) for row in rows_of(last.result)] == [len(text) for text in section.worked]
    assert last.preview is not None
    assert last.preview.columns == ("id", "prompt", "model", "settings", "length", "error")
    assert len(last.preview.rows) == 5
    assert section.kept == [last.result]


def test_a_page_that_is_closed_midway_ends_the_work_and_the_same_file_goes_on_where_it_was(section: Section) -> None:
    path = write_prompts(section.folder / "in.csv", 200)
    seen = section.run(path, until=lambda view: view.done >= 30)
    done, worked = seen[-1].done, len(section.worked)
    assert worked < 200
    other = section.folder / "sent-again"
    other.mkdir()
    last = section.run(write_prompts(other / "in.csv", 200))[-1]
    assert last.note == "Done: 200 rows."
    assert len(section.worked) - worked <= 200 - done
    assert last.result is not None
    assert [row["id"] for row in rows_of(last.result)] == [str(number) for number in range(200)]


def test_cancel_keeps_what_is_done_and_says_that_run_goes_on(section: Section) -> None:
    path = write_prompts(section.folder / "in.csv", 200)

    def cancelled(view: FileView) -> bool:
        if view.done >= 30:
            section.runs.cancel(STRANGER)
        return False

    last = section.run(path, STRANGER, until=cancelled)[-1]
    assert last.note == f"{last.done} of 200 rows are done. " + AGAIN
    assert 30 <= last.done < 200
    assert last.result is not None
    assert len(rows_of(last.result)) == last.done
    assert section.run(path, STRANGER)[-1].note == "Done: 200 rows."


def test_another_visitor_or_another_setting_has_a_result_of_its_own(section: Section) -> None:
    path = write_prompts(section.folder / "in.csv", 3)
    asked = ((STRANGER, "hot"), (OTHER, "hot"), (OTHER, "cold"))
    results = [section.run(path, who, settings=settings)[-1].result for who, settings in asked]
    assert len(set(results)) == 3
    assert len(section.worked) == 9
    assert section.run(path, OTHER, settings="cold")[-1].result == results[-1]
    assert len(section.worked) == 9


def test_a_visitor_has_one_file_at_a_time_and_the_server_so_many(
    section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_runs, "FILES_AT_ONCE", 1)
    path = write_prompts(section.folder / "in.csv", 5)

    async def read(visitor: Visitor) -> str:
        return [one async for one in section.runs.run(str(path), "prompt", section.plan, visitor, messages())][-1].error

    async def both() -> list[str]:
        views = section.runs.run(str(path), "prompt", section.plan, STRANGER, messages())
        async with aclosing(views):
            await anext(views)
            return [await read(STRANGER), await read(OTHER)]

    mine, others = asyncio.run(both())
    assert "Your file in.csv is still being worked on" in mine
    assert "working on 1 files already" in others
    assert asyncio.run(read(STRANGER)) == ""


def test_a_strangers_file_has_a_limit_and_the_owners_none(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_runs, "PUBLIC_ROWS", 10)
    path = write_prompts(section.folder / "in.csv", 11)
    refused = section.run(path, STRANGER)[-1]
    assert "more than 10 rows" in refused.error
    assert (refused.running, refused.result, section.worked) == (False, None, [])
    assert section.run(path, OWNER)[-1].done == 11


def test_what_is_wrong_with_a_file_or_a_setting_is_a_sentence_and_nothing_is_made(section: Section) -> None:
    path = write_prompts(section.folder / "in.csv", 3)
    assert "no column nothing" in section.run(path, column="nothing")[-1].error
    (section.folder / "bad.csv").write_bytes(b"prompt\n\xff\n")
    assert "is not UTF-8" in section.run(section.folder / "bad.csv")[-1].error

    def refuse() -> Plan:
        raise InvalidParameter("top_k", -1, Reason("expected.text"))

    async def read() -> list[FileView]:
        return [view async for view in section.runs.run(str(path), "prompt", refuse, OWNER, messages())]

    assert "top_k is -1" in asyncio.run(read())[-1].error
    assert section.worked == []


def test_an_engine_that_fails_midway_leaves_the_rows_before_it_and_the_next_run_goes_on(section: Section) -> None:
    broken = iter(range(50))

    def fails_once(text: str) -> Mapping[str, Value]:
        if next(broken, None) == 40:
            raise ZeroDivisionError
        return length(text)

    section.made = fails_once
    path = write_prompts(section.folder / "in.csv", 60)
    last = section.run(path)[-1]
    assert (last.running, last.error) == (False, messages()("error.unexpected"))
    assert last.result is not None
    assert 0 < last.done == len(rows_of(last.result)) <= 40
    assert section.run(path)[-1].note == "Done: 60 rows."


def test_the_first_rows_are_shown_before_anything_is_done(section: Section) -> None:
    path = section.folder / "in.jsonl"
    line = json.dumps({"a": "x" * 500, "b": None})
    path.write_text(f"{line}\n" * 9, encoding="utf-8")
    found = section.runs.look(str(path), messages())
    assert isinstance(found, Preview)
    assert (found.columns, len(found.rows), found.rows[0][1]) == (("a", "b"), 5, "")
    assert len(found.rows[0][0]) == 120
    path.write_text("[1]\n", encoding="utf-8")
    assert "no JSON object" in str(section.runs.look(str(path), messages()))


def test_the_text_tabs_settings_are_what_is_done_with_each_row() -> None:
    plan = file_plan(scripted(), ["", 0.5, 0.8, 20, 0.1, 1.2, 64, "", 3, "\\n\nEND", True, "chat"], OWNER)
    assert plan.task.fixed["model"] == EMBEDDED.name
    assert json.loads(str(plan.task.fixed["settings"])) == {
        "max_new_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stops": ["\n", "END"],
        "n": 3,
        "as_chat": True,
        "trim": True,
    }
    with pytest.raises(InvalidParameter):
        file_plan(scripted(), ["", "hot", 0.8, 20, 0.1, 1.2, 64, 7, 3, None, False, "raw"], OWNER)

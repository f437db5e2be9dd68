from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_demo import errors, table_lines
from llama_demo.messages import messages
from llama_demo.tables import CsvTable, JsonlTable, check_table, harmless, open_table

Write = Callable[[str, bytes | str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


def texts(path: Path, column: str = "prompt") -> list[str]:
    return [row.values[column] for row in open_table(path).rows()]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(write: Write, mark: str) -> None:
    rows = [["id", "prompt"], ["1", "One, two; and so on."], ["2", "서울 🦙"], ["3", "plain"]]
    text = "\n".join(mark.join(f'"{cell}"' if mark in cell else cell for cell in row) for row in rows)
    assert texts(write("in.csv", text)) == ["One, two; and so on.", "서울 🦙", "plain"]


def test_one_column_of_prose_is_one_column(write: Write) -> None:
    assert texts(write("in.csv", "prompt\nOnce upon a time\nIt's the dog's bone\n")) == [
        "Once upon a time",
        "It's the dog's bone",
    ]
    assert texts(write("in.tsv", "prompt\nOne, two; three\n")) == ["One, two; three"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_line_ends_and_line_breaks_within_a_cell_are_read(write: Write, end: str) -> None:
    path = write("in.csv", "\ufeff" + end.join(["prompt,id", '"two\nlines, ""quoted""",1', "", "b,2", ""]))
    table = open_table(path)
    assert table.columns == ("prompt", "id")
    assert [(row.number, row.values["prompt"]) for row in table.rows()] == [(1, 'two\nlines, "quoted"'), (2, "b")]


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
def test_a_wrong_encoding_is_refused_with_its_byte_and_line(write: Write, name: str) -> None:
    head = b"prompt\nfirst\n" if name == "in.csv" else b'{"prompt": "a"}\n{"prompt": "b"}\n'
    body = "서울".encode() + b" caf\xe9\n"
    content = head + (body if name == "in.csv" else b'{"prompt": "' + body)
    with pytest.raises(errors.NotUtf8) as caught:
        list(open_table(write(name, content)).rows())
    assert caught.value.line == 3
    assert content[caught.value.byte - 1] == 0xE9
    words = messages().error(caught.value)
    assert "line 3" in words
    assert "Save it as UTF-8" in words


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_refused_at_its_beginning(write: Write, encoding: str) -> None:
    with pytest.raises(errors.NotUtf8) as caught:
        open_table(write("in.csv", "prompt\nhello\n".encode(encoding)))
    assert caught.value.byte <= 2


def test_the_byte_is_right_far_into_a_large_file(write: Write) -> None:
    content = b"prompt\n" + "서울 🦙\n".encode() * 400_000 + b"caf\xe9"
    with pytest.raises(errors.NotUtf8) as caught:
        list(open_table(write("in.csv", content)).rows())
    assert (caught.value.byte, caught.value.line) == (len(content), 400_002)


def test_a_file_that_ends_within_a_character_is_refused(write: Write) -> None:
    content = "prompt\n서울".encode()[:-1]
    with pytest.raises(errors.NotUtf8) as caught:
        list(open_table(write("in.csv", content)).rows())
    assert caught.value.byte == len("prompt\n서".encode()) + 1


BAD: list[tuple[str, str, type[errors.BadTable], tuple[str, ...]]] = [
    ("in.csv", "", errors.EmptyTable, ()),
    ("in.csv", "\n\n", errors.EmptyTable, ()),
    ("in.csv", "prompt\n", errors.EmptyTable, ()),
    ("in.jsonl", "\n", errors.EmptyTable, ()),
    ("in.txt", "prompt\na\n", errors.UnknownTableFormat, (".csv", ".jsonl")),
    ("in.csv", "id,text\n1,a\n", errors.MissingColumn, ("line 1", "prompt", "id, text")),
    ("in.csv", "prompt,id,prompt\na,1,b\n", errors.DuplicateColumn, ("line 1", "prompt")),
    ("in.csv", "prompt,id\na,1\n\nb\n", errors.RaggedRow, ("line 4", "1 cells", "header 2", "prompt")),
    ("in.csv", 'prompt,id\n"a\nb",1\nc,2,3\n', errors.RaggedRow, ("line 4", "3 cells")),
    ("in.csv", 'id,prompt\n1,"never closed\n2,b\n', errors.BadQuotes, ("line 2", "column prompt")),
    ("in.csv", 'id,prompt\n1,"a" b\n', errors.BadQuotes, ("line 2", "column prompt")),
    ("in.jsonl", '{"prompt": "a"}\n{"prompt": "b"\n', errors.BadJson, ("line 2", "character 15")),
    ("in.jsonl", '["a"]\n', errors.BadJson, ("line 1", "object in braces")),
    ("in.jsonl", '{"prompt": NaN}\n', errors.BadJson, ("line 1", "NaN is no JSON number")),
    ("in.jsonl", '{"prompt": "a", "x": ' + "[" * 100_000 + "\n", errors.BadJson, ("line 1", "nested too deep")),
    ("in.jsonl", '{"prompt": "a", "prompt": "b"}\n', errors.DuplicateColumn, ("line 1", "prompt")),
    ("in.jsonl", '{"prompt": "a"}\n\n{"text": "b"}\n', errors.MissingColumn, ("line 3", "prompt", "text")),
    ("in.jsonl", '{"prompt": "a"}\n{"prompt": 7}\n', errors.NotText, ("line 2", "prompt")),
    ("in.csv", "prompt,error\na,b\n", errors.ColumnTaken, ("error",)),
    ("in.jsonl", '{"prompt": "a"}\n{"prompt": "b", "error": 1}\n', errors.ColumnTaken, ("error",)),
]


@pytest.mark.parametrize(("name", "content", "kind", "said"), BAD)
def test_a_bad_file_is_refused_with_its_line_and_column(
    write: Write, name: str, content: str, kind: type[errors.BadTable], said: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        check_table(open_table(write(name, content)), "prompt", added=("error",))
    words = messages().error(caught.value)
    assert name in words
    assert all(part in words for part in said), words


def test_a_huge_cell_is_refused_with_its_line_and_column_and_read_no_further(write: Write) -> None:
    cell = "x" * (table_lines.RECORD_CHARACTERS + 1)
    path = write("in.csv", "id,prompt\n1,a\n2," + cell + "\n")
    with pytest.raises(errors.CellTooLong) as caught:
        list(open_table(path).rows())
    assert (caught.value.line, caught.value.column) == (3, "prompt")
    with pytest.raises(errors.CellTooLong):
        open_table(write("in.jsonl", f'{{"prompt": "{cell}"}}\n'))


def test_a_quote_that_is_never_closed_does_not_read_the_file_into_memory(write: Write) -> None:
    path = write("in.csv", 'id,prompt\n1,"never closed\n' + "2,b\n" * 5_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(errors.CellTooLong) as caught:
            list(open_table(path).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (caught.value.line, caught.value.column) == (2, "prompt")
    assert peak < 150_000_000


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.NotReadable, match="No such file"):
        open_table(tmp_path / "none.csv")


def test_more_rows_or_bytes_than_are_taken_are_refused(write: Write) -> None:
    table = open_table(write("in.csv", "prompt\n" + "a\n" * 11))
    assert check_table(table, "prompt", rows=11, size_bytes=29) == 11
    with pytest.raises(errors.TooManyRows):
        check_table(table, "prompt", rows=10)
    with pytest.raises(errors.TableTooLarge):
        check_table(table, "prompt", size_bytes=28)


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
def test_many_rows_are_read_in_the_memory_of_a_few(write: Write, name: str) -> None:
    line = '"a prompt of some length, with a comma"\n'
    many = "prompt\n" + line * 200_000 if name == "in.csv" else f'{{"prompt": {line[:-1]}}}\n' * 200_000
    table = open_table(write(name, many))
    tracemalloc.start()
    try:
        assert sum(1 for _ in table.rows()) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "-", "=", "- five"])
def test_what_a_spreadsheet_would_run_is_made_a_text(text: str) -> None:
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("text", ["", "-5", "+3.25", "-1e-5", "-.5", "a=1", "서울", "5-3", "'=1"])
def test_numbers_and_plain_texts_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def test_formulas_are_harmless_in_every_column_and_for_every_delimiter(write: Write) -> None:
    table = open_table(write("in.csv", "id;prompt\n=HYPERLINK(1);a,=1\n"))
    (row,) = table.rows()
    record = table.record(row, {"completion": "@SUM(1)", "perplexity": -1.5})
    assert record == b'"\'=HYPERLINK(1)";"a,=1";"\'@SUM(1)";"-1.5"\n'


def test_a_row_of_json_is_written_as_it_was_read(write: Write) -> None:
    source = '{ "id":1.10, "big": 12345678901234567890.5 ,"half": "\\ud83d", "prompt":"서울" }'
    table = open_table(write("in.jsonl", source + "\n"))
    (row,) = table.rows()
    record = table.record(row, {"completion": "=1 서울", "perplexity": float("inf")}).decode()
    assert record.startswith(source[:-2])
    assert json.loads(record)["completion"] == "=1 서울"
    assert json.loads(record)["perplexity"] is None
    (empty,) = open_table(write("empty.jsonl", "{ }\n")).rows()
    assert table.record(empty, {"a": 1}) == b'{"a": 1}\n'


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2))
def test_what_is_written_is_read_back_the_same(cells: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        csv_path, json_path = Path(folder, "in.csv"), Path(folder, "in.jsonl")
        csv_path.write_text("prompt\na\n", encoding="utf-8")
        json_path.write_text('{"prompt": "a"}\n', encoding="utf-8")
        for table in (CsvTable(csv_path, "in.csv"), JsonlTable(json_path, "in.jsonl")):
            (row,) = table.rows()
            added = {"completion": cells[0], "finish": cells[1]}
            assert table.parse(table.record(row, added)) == table.cells(row, added)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_demo import errors
from llama_demo.table_output import Output
from llama_demo.tables import open_table

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ["plain", 'two\nlines, "quoted"', "=1+1", "서울 🦙", "", "last"]


@pytest.fixture(params=["csv", "jsonl"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of six prompts that are hard to write."""
    path = tmp_path / f"in.{request.param}"
    if request.param == "csv":
        cells = ['"' + prompt.replace('"', '""') + '"' for prompt in PROMPTS]
        path.write_text("id,prompt\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)), encoding="utf-8")
    else:
        rows = [json.dumps({"id": i, "prompt": prompt}) for i, prompt in enumerate(PROMPTS)]
        path.write_text("\n".join(rows), encoding="utf-8")
    return path


def opened(source: Path, model: str = "tiny", made: tuple[str, ...] = ("completion",)) -> Output:
    return Output(source.with_stem("out"), open_table(source), fixed={"model": model}, made=made)


def fill(source: Path, count: int | None = None) -> bytes:
    """Writes `count` rows, or all; the third has an error."""
    with opened(source) as output:
        for row in list(output.remaining)[:count]:
            bad = row.values["prompt"] == "=1+1"
            output.append(row, {} if bad else {"completion": f'so "{row.number}"\r\n'}, "it failed" if bad else "")
    return source.with_stem("out").read_bytes()


def test_every_row_has_what_was_made_for_it_or_its_error(source: Path) -> None:
    fill(source)
    rows = [dict(row.values) for row in open_table(source.with_stem("out")).rows()]
    assert [row["completion"] for row in rows if not row["error"]] == [f'so "{i}"\r\n' for i in (1, 2, 4, 5, 6)]
    assert rows[2]["error"] == "it failed"
    assert not rows[2]["completion"]
    assert {row["model"] for row in rows} == {"tiny"}
    prompt = "'=1+1" if source.suffix == ".csv" else "=1+1"
    assert [row["prompt"] for row in rows] == [*PROMPTS[:2], prompt, *PROMPTS[3:]]


def test_an_output_cut_at_any_byte_is_gone_on_with_to_the_same_file(source: Path) -> None:
    whole = fill(source)
    out = source.with_stem("out")
    for length in range(len(whole) + 1):
        out.write_bytes(whole[:length])
        with opened(source) as output:
            assert whole.startswith(out.read_bytes())
            assert output.failed == (output.done >= 3)
        assert fill(source) == whole, length


def test_zeros_that_a_power_cut_left_are_cut_off(source: Path) -> None:
    whole = fill(source)
    for lost in (10, len(whole) // 2, len(whole) - 3):
        source.with_stem("out").write_bytes(whole[:-lost] + b"\0" * lost)
        assert fill(source) == whole


def test_an_output_that_is_not_this_inputs_is_refused_with_the_reason_and_left_alone(source: Path) -> None:
    whole = fill(source, 4)
    out = source.with_stem("out")
    with pytest.raises(errors.MadeOtherwise) as caught:
        opened(source, model="other")
    assert (caught.value.column, caught.value.there, caught.value.asked) == ("model", "tiny", "other")
    with pytest.raises(errors.ForeignOutput, match="no column completion_1"):
        opened(source, made=("completion_1", "completion_2"))
    with pytest.raises(errors.ForeignOutput, match="no column another"):
        opened(source, made=("another",))
    with pytest.raises(errors.ForeignOutput, match="a column completion"):
        opened(source, made=())
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("plain", "changed"), encoding="utf-8")
    with pytest.raises(errors.ForeignOutput, match="row 1 is another"):
        opened(source)
    source.write_text(text.split("last")[0] if source.suffix == ".jsonl" else "id,prompt\n0,plain\n", encoding="utf-8")
    if source.suffix == ".csv":
        with pytest.raises(errors.ForeignOutput, match="more than 1 rows"):
            opened(source)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("notes", [b"my,own\nnotes,1\n", b"one line without an end", b'"', b"{", b"\xff" * 99])
def test_some_other_file_is_never_touched(source: Path, notes: bytes) -> None:
    out = source.with_stem("out")
    out.write_bytes(notes)
    ours = b'{"id": 0' if source.suffix == ".jsonl" else b'"id","prompt"'
    if ours.startswith(notes):
        opened(source).close()
        return
    with pytest.raises(errors.ForeignOutput):
        opened(source)
    assert out.read_bytes() == notes
    torn = fill_beside(source) + notes
    out.write_bytes(torn)
    with pytest.raises(errors.ForeignOutput):
        opened(source)
    assert out.read_bytes() == torn


def fill_beside(source: Path) -> bytes:
    """What two rows look like."""
    source.with_stem("out").unlink()
    return fill(source, 2)


def test_the_input_itself_and_another_kind_of_file_are_refused(source: Path) -> None:
    table = open_table(source)
    with pytest.raises(errors.NotWritable, match=r"file\.is_input"):
        Output(source, table, fixed={}, made=())
    with pytest.raises(errors.UnknownTableFormat):
        Output(source.with_suffix(".txt"), table, fixed={}, made=())
    with pytest.raises(errors.NotWritable):
        Output(source.parent / "nowhere" / source.name, table, fixed={}, made=())


@pytest.mark.parametrize(("kind", "other"), [("csv", "tsv"), ("tsv", "csv")])
def test_an_output_whose_name_promises_another_delimiter_is_refused(kind: str, other: str, tmp_path: Path) -> None:
    source, text = tmp_path / f"in.{kind}", "id,prompt\n0,plain\n"
    source.write_text(text.replace(",", "\t") if kind == "tsv" else text, encoding="utf-8")
    with pytest.raises(errors.UnknownTableFormat) as caught:
        Output(tmp_path / f"out.{other}", open_table(source), fixed={}, made=())
    assert caught.value.known == (f".{kind}",)
    assert not (tmp_path / f"out.{other}").exists()
    fill(source)
    assert [row.values["prompt"] for row in open_table(tmp_path / f"out.{kind}").rows()] == ["plain"]
    assert opened(source).done == 1


def test_two_runs_never_write_one_file(source: Path) -> None:
    with opened(source), pytest.raises(errors.OutputInUse):
        opened(source)
    opened(source).close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from llama_demo import errors
from tests.test_table_output import fill
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    fill(Path(sys.argv[1]))
except errors.DiskFull as error:
    print(error.free_bytes > 0)
"""


def test_a_full_disk_is_said_and_the_file_ends_with_a_whole_row(source: Path) -> None:
    """A limit on the file's size stands for the full disk: the last write goes through in part, then fails."""
    whole = fill(source)
    out = source.with_stem("out")
    room = whole.index("서울".encode() if source.suffix == ".csv" else b"\\uc11c") + 1
    out.unlink()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(source), str(room)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert whole.startswith(out.read_bytes())
    assert out.read_bytes().endswith(b"\n")
    assert b"it failed" in out.read_bytes()
    assert fill(source) == whole

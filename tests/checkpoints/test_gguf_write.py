"""Files that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.whole import replacing
from tests.checkpoints.killed import writer

_WRITER = """
import sys
from pathlib import Path
from llama_demo.checkpoints.whole import replacing
with replacing(Path(sys.argv[1]), 10) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_gone_after_the_next_run(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    with writer(_WRITER, target) as process:
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(target, 10) as file:
        file.write(b"whole")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"whole"


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    with writer(_WRITER, target) as process:
        with replacing(target, 10) as file:
            file.write(b"whole")
        assert target.read_bytes() == b"whole"
        process.communicate("")
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"half"


def test_a_report_that_raises_midway_stops_the_write_and_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        gguf.write_gguf(tiny_folder, tmp_path / "model.gguf", to="f32", report=report)
    assert len(told) == 5
    assert list(tmp_path.iterdir()) == []


def test_progress_grows_from_nothing_to_the_whole_file(tiny_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "model.gguf"
    gguf.write_gguf(tiny_folder, target, to="q8_0", report=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {target.stat().st_size}
    assert target.stat().st_size - told[-1][0] < 32

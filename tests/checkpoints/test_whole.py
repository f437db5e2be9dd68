"""Folders that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import shutil
import signal
from pathlib import Path

import pytest

from llama_demo.checkpoints.whole import remove_abandoned, replacing_folder
from llama_demo.errors import DiskFull
from tests.checkpoints.killed import writer

_WRITER = """
import sys
from pathlib import Path
from llama_demo.checkpoints.whole import replacing_folder
with replacing_folder(Path(sys.argv[1]), 10) as folder:
    (folder / "config.json").write_text("{}")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_nothing_under_the_name_and_the_next_one_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with writer(_WRITER, target) as process:
        assert not target.exists()
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with replacing_folder(target, 10) as folder:
        (folder / "a").write_text("whole")
    assert list(tmp_path.iterdir()) == [target]
    assert [path.name for path in target.iterdir()] == ["a"]


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
    with writer(_WRITER, tmp_path / "model") as process:
        remove_abandoned(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        process.communicate("")
        assert process.returncode == 0
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


def test_a_name_with_wildcards_clears_up_only_its_own(tmp_path: Path) -> None:
    others = tmp_path / ".models.12345678.partial"
    others.mkdir()
    with replacing_folder(tmp_path / "model*", 10):
        pass
    assert others.is_dir()


def test_an_error_midway_leaves_nothing(tmp_path: Path) -> None:
    writing = replacing_folder(tmp_path / "model", 10)
    (writing.__enter__() / "half").write_text("half")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_and_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiskFull), replacing_folder(tmp_path / "model", 10):
        raise OSError(errno.ENOSPC, "No space left on device")
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    with pytest.raises(DiskFull) as caught, replacing_folder(tmp_path / "model", 10):
        pass
    assert (caught.value.needed_bytes, caught.value.free_bytes) == (10, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(FileExistsError), replacing_folder(tmp_path, 10):
        pass
    assert (tmp_path / "kept").read_text() == "kept"

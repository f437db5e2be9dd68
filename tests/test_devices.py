from __future__ import annotations

from pathlib import Path

import psutil

from llama_demo.devices import read_cpu


def test_without_a_container_the_machines_memory_counts(tmp_path: Path) -> None:
    device = read_cpu(tmp_path)
    assert device.total_bytes == psutil.virtual_memory().total
    assert 0 < device.free_bytes <= device.total_bytes


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 600000000\ninactive_file 100000000\n")
    device = read_cpu(tmp_path)
    assert device.total_bytes == 1_000_000_000
    assert device.free_bytes == 400_000_000


def test_a_container_without_a_limit_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert read_cpu(tmp_path).total_bytes == psutil.virtual_memory().total

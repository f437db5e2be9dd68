from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from llama_demo.devices import Device, read_cpu, read_gpus


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


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("GPU-a1, 81559, 80000\nGPU-b2, 24564, 100", [("cuda:0", 81559, 80000), ("cuda:1", 24564, 100)]),
        ("", []),
        ("No devices were found", []),
    ],
)
def test_gpus_are_those_that_the_driver_lists(
    says: str, found: list[tuple[str, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n" if says else "#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    mib = 2**20
    assert read_gpus() == tuple(Device(name, total * mib, free * mib) for name, total, free in found)


def test_without_a_driver_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("1,0", [200, 100]),
        ("GPU-b", [200]),
        ("2", [300]),
        ("0,7,1", [100]),
        ("", []),
        ("-1", []),
    ],
)
def test_hidden_gpus_are_not_counted_and_the_others_keep_torchs_order(
    visible: str, found: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU-a1, 900, 100\nGPU-b2, 900, 200\nGPU-c3, 900, 300'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus = read_gpus(visible)
    assert [gpu.free_bytes // 2**20 for gpu in gpus] == found
    assert [gpu.name for gpu in gpus] == [f"cuda:{number}" for number in range(len(found))]

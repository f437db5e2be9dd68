from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.control_group import limited
from llama_demo.devices import Device, core_limit, read_cpu, read_gpus


def membership(folder: Path, lines: str) -> Path:
    """A process's own list of its control groups."""
    path = folder / "membership"
    path.write_text(lines, encoding="ascii")
    return path


def write_all(folder: Path, **files: str) -> None:
    """The files of a control group; two underlines stand for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n", encoding="ascii")


def test_without_a_container_the_machines_memory_counts(tmp_path: Path) -> None:
    for device in (read_cpu(tmp_path, tmp_path / "none"), read_cpu(tmp_path, membership(tmp_path, "0::/\n"))):
        assert device.total_bytes == psutil.virtual_memory().total
        assert 0 < device.free_bytes <= device.total_bytes


@pytest.mark.parametrize("name", ["/", "/docker/0123"])
def test_a_containers_limit_counts_where_it_is_less(name: str, tmp_path: Path) -> None:
    """Its own group is the root that it sees, though it may be called by the host's name for it."""
    write_all(
        tmp_path,
        memory__max="1000000000",
        memory__current="700000000",
        memory__stat="anon 600000000\ninactive_file 100000000",
    )
    device = read_cpu(tmp_path, membership(tmp_path, f"0::{name}\n"))
    assert device.total_bytes == 1_000_000_000
    assert device.free_bytes == 400_000_000


def test_an_older_hosts_limit_counts_too(tmp_path: Path) -> None:
    write_all(
        tmp_path / "memory" / "pods" / "one",
        memory__limit_in_bytes="1000000000",
        memory__usage_in_bytes="700000000",
        memory__stat="inactive_file 1\ntotal_inactive_file 100000000",
    )
    write_all(tmp_path / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="9000000000")
    device = read_cpu(tmp_path, membership(tmp_path, "9:name=systemd:/\n4:memory:/pods/one\n0::/\n"))
    assert device == Device("CPU", 1_000_000_000, 400_000_000)


def test_a_services_limit_and_those_of_what_it_is_part_of_all_hold(tmp_path: Path) -> None:
    write_all(tmp_path / "system.slice", memory__max="1000000000", memory__current="900000000")
    write_all(tmp_path / "system.slice" / "app.service", memory__max="1500000000", memory__current="200000000")
    device = read_cpu(tmp_path, membership(tmp_path, "0::/system.slice/app.service\n"))
    assert device == Device("CPU", 1_000_000_000, 100_000_000)


def test_a_container_without_a_limit_is_as_none(tmp_path: Path) -> None:
    write_all(tmp_path, memory__max="max", cpu__max="max 100000")
    own = membership(tmp_path, "0::/\n")
    assert read_cpu(tmp_path, own).total_bytes == psutil.virtual_memory().total
    assert core_limit(tmp_path, own) is None


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("150000", 2), ("50000", 1), ("6400000", None)])
def test_a_containers_share_of_the_processor_is_counted_in_whole_cores(
    quota: str, cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    write_all(tmp_path / "one", cpu__max=f"{quota} 100000")
    assert core_limit(tmp_path, membership(tmp_path, "0::/one\n")) == cores
    write_all(tmp_path / "cpu" / "one", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    write_all(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert core_limit(tmp_path, membership(tmp_path, "3:cpu,cpuacct:/one\n")) == cores


def test_in_a_real_control_group_its_limits_are_what_there_is() -> None:
    program = "from llama_demo.devices import core_limit, read_cpu; print(read_cpu().total_bytes, core_limit())"
    try:
        with limited(512 * 2**20, 1) as group:
            inside = group.command([sys.executable, "-c", program])
            done = subprocess.run(inside, capture_output=True, text=True, check=True)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    assert done.stdout.split() == [str(512 * 2**20), "1" if len(os.sched_getaffinity(0)) > 1 else "None"]


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

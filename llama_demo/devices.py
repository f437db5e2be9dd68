"""What this machine has: memory and processors, and the limits that a container or a service sets on them.

It decides nothing and loads nothing. The limits are those of Linux's control groups, of either version.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

CPU = "CPU"
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_DRIVER_SECONDS = 10.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Device:
    """`free_bytes` is what a new load could take now."""

    name: str
    total_bytes: int
    free_bytes: int


def read_cpu(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> Device:
    """The machine's memory, or what a control group allows of it where that is less."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for group, version in control_groups("memory", cgroup, membership):
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            names = ("memory.max", "memory.current", "inactive_file")
        limit = _read_number(group / names[0])
        if limit is not None and limit < memory.total:
            used = _read_number(group / names[1]) or 0
            reclaimable = _read_field(group / "memory.stat", names[2])
            total, free = min(total, limit), min(free, max(0, limit - used + reclaimable))
    return Device(CPU, total, free)


def core_limit(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int | None:
    """As many cores as a control group gives time for; None where these are not fewer than the process sees.

    Libraries start a thread for every core that they see. Where a container has time for few of many, such threads use
    it up together, and then stand still together.
    """
    seen = cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, version in control_groups("cpu", cgroup, membership):
        if version == 1:
            quota, period = _read_number(group / "cpu.cfs_quota_us"), _read_number(group / "cpu.cfs_period_us")
        else:
            quota, period = _read_pair(group / "cpu.max")
        if quota and period:
            cores = min(cores, math.ceil(quota / period))
    return cores if cores < seen else None


def control_groups(
    controller: str, cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP
) -> Iterator[tuple[Path, int]]:
    """The folders of the control groups that this process is in, whose limits all hold, from the innermost to the root;
    each with the version of its interface.

    In a container the root may be its own group, which has the host's name there: so some of these may not exist.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (cgroup / controller, 1) if controllers else (cgroup, 2)
        own = PurePosixPath(name.lstrip("/"))
        for group in (own, *own.parents):
            yield root / group, version


def read_gpus(visible: str | None = None) -> tuple[Device, ...]:
    """The NVIDIA GPUs that the driver lists, named as torch names them; none where there is no driver.

    `visible` is the value of CUDA_VISIBLE_DEVICES, which hides and orders them for torch, and not for the driver.
    """
    found = shutil.which("nvidia-smi")
    if found is None:
        return ()
    query = [found, "--query-gpu=uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True)
        rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
        shown = rows if visible is None else _visible(rows, visible)
        return tuple(
            Device(f"cuda:{number}", int(total) * _MIB, int(free) * _MIB)
            for number, (_, total, free) in enumerate(shown)
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _visible(rows: Sequence[list[str]], visible: str) -> list[list[str]]:
    """Those that are named, by their number or the beginning of their UUID, in that order; an unknown name hides what
    comes after it, as it does for CUDA."""
    shown: list[list[str]] = []
    for name in map(str.strip, visible.split(",")):
        found = [row for number, row in enumerate(rows) if name in (str(number), row[0][: len(name)])]
        if not name or not found:
            break
        shown.append(found[0])
    return shown


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def _read_pair(path: Path) -> tuple[int | None, int | None]:
    """A quota and its period; "max" is none."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None, None
    return int(quota) if quota.isdigit() else None, int(period)


def _read_field(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + " ")), 0)

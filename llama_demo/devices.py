"""What this machine has: memory, and the limits a container sets on it. It decides nothing and loads nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

CPU = "CPU"
_CGROUP = Path("/sys/fs/cgroup")
_DRIVER_SECONDS = 10.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Device:
    """`free_bytes` is what a new load could take now."""

    name: str
    total_bytes: int
    free_bytes: int


def read_cpu(cgroup: Path = _CGROUP) -> Device:
    """The machine's memory, or the container's where that is less."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = _read_number(cgroup / "memory.max")
    if limit is not None and limit < total:
        used = _read_number(cgroup / "memory.current") or 0
        reclaimable = _read_field(cgroup / "memory.stat", "inactive_file")
        total, free = limit, min(free, max(0, limit - used + reclaimable))
    return Device(CPU, total, free)


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


def _read_field(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + " ")), 0)

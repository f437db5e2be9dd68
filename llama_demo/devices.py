"""What this machine has: memory, and the limits a container sets on it. It decides nothing and loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

CPU = "CPU"
_CGROUP = Path("/sys/fs/cgroup")


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

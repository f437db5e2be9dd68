"""Real limits on one command's memory and processor time, as a container has them: a control group of Linux.

Made inside the group that the benchmark is in itself, where this machine allows that (it takes root, as a rule).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llama_demo.devices import control_groups

PERIOD_MICROSECONDS = 100_000


class ControlGroup:
    """What is started by its command is held to the limits, with all its children."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def command(self, command: Sequence[str | Path]) -> list[str]:
        joins = [f"echo $$ > {shlex.quote(str(folder / 'cgroup.procs'))}" for folder in self._folders]
        return ["sh", "-c", " && ".join([*joins, 'exec "$@"']), "sh", *map(str, command)]


@contextmanager
def limited(memory_bytes: int, cores: int) -> Iterator[ControlGroup]:
    """A group for the block, without swap. Raises `OSError` where none can be made here."""
    memory, quota = str(memory_bytes), str(cores * PERIOD_MICROSECONDS)
    limits = {
        ("memory", 1): {"memory.limit_in_bytes": memory},
        ("memory", 2): {"memory.max": memory},
        ("cpu", 1): {"cpu.cfs_period_us": str(PERIOD_MICROSECONDS), "cpu.cfs_quota_us": quota},
        ("cpu", 2): {"cpu.max": f"{quota} {PERIOD_MICROSECONDS}"},
    }
    where_there_is_swap = {"memory.memsw.limit_in_bytes": memory, "memory.swap.max": "0"}
    with ExitStack() as made:
        folders: list[Path] = []
        for controller in ("memory", "cpu"):
            outer, version = next(control_groups(controller), (Path("/nowhere"), 0))
            folder = outer / f"llama-demo-{os.getpid()}"
            if folder not in folders:
                folder.mkdir()
                made.callback(folder.rmdir)
                folders.append(folder)
            for name, value in limits[controller, version].items():
                (folder / name).write_text(value, encoding="ascii")
            for name, value in where_there_is_swap.items():
                if (folder / name).exists():
                    (folder / name).write_text(value, encoding="ascii")
        yield ControlGroup(folders)

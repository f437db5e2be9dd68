"""Another process that is in the middle of writing a file or a folder, for a test to kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def writer(program: str, *paths: Path) -> subprocess.Popen[str]:
    """Runs `program` with `paths`, and returns when it has printed `writing`."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, paths)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process

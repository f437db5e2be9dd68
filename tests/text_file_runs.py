"""A program that runs the command line and ends itself at a given row, and tells of its memory."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PROGRAM = """
import json, os, signal, sys
import psutil
from llama_demo import cli, table_output
append, made = table_output.Output.append, 0
at, by, measured = json.loads(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
def counted(output, *arguments):
    global made
    append(output, *arguments)
    made += 1
    if made in measured:
        ours = psutil.Process()
        print(json.dumps([made, [one.memory_info().rss for one in (ours, *ours.children())]]), flush=True)
    if made == at:
        os.kill(os.getpid(), by)
table_output.Output.append = counted
sys.exit(cli.main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Ran:
    """How it ended, what it said, and the bytes that it and then its engine's process had after so many rows."""

    status: int
    out: str
    err: str
    memory: dict[int, list[int]]


def run(
    *arguments: str | Path,
    ended_at: int = 0,
    by: signal.Signals = signal.SIGKILL,
    measured: tuple[int, ...] = (),
) -> Ran:
    """The command with `arguments`; it gets the signal `by` once it has made `ended_at` rows, unless that is 0."""
    plan = json.dumps([ended_at, by, measured])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, plan, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env=os.environ.copy(),
    )
    lines = done.stdout.splitlines()
    told = [json.loads(line) for line in lines if line.startswith("[")]
    out = "\n".join(line for line in lines if not line.startswith("["))
    return Ran(done.returncode, out, done.stderr, dict(told))


def write_prompts(path: Path, rows: int, column: str = "prompt") -> Path:
    """Rows with a number each, so that one that is lost or there twice shows."""
    lines = "".join(f'{number},"The dog {number}, on warm stones"\n' for number in range(rows))
    path.write_text(f"id,{column}\n{lines}", encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))

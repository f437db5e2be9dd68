"""This app, started for a measurement with a cache of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.servers import HOST, free_port, started

ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    """Nothing is fetched while it is measured, and nothing reported to anybody."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", **more}


@contextmanager
def running_app(*options: str, cache: Path | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """The app's address and its process. `cache` is its folder, else one that goes with it. Raises `NotStarted`."""
    with tempfile.TemporaryDirectory() as own:
        port = free_port()
        url = f"http://{HOST}:{port}"
        command: list[str | Path] = [sys.executable, ROOT / "app.py", "--host", HOST, "--port", str(port)]
        command += ["--cache-dir", cache or own]
        with started([*command, *options], ready_url=url, environment=environment(), folder=ROOT) as process:
            yield url, process

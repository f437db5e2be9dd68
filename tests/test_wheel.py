"""The wheel: it carries what the app reads, and starts it where the repository is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent


def test_every_file_that_the_app_reads_belongs_to_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["llama_demo"]
    others = [
        path.relative_to(ROOT / "llama_demo").as_posix()
        for path in (ROOT / "llama_demo").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert others
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)] == []


@pytest.mark.slow
def test_the_installed_wheel_starts_the_app_outside_of_the_repository(tmp_path: Path, tiny_folder: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "llama_demo", source / "llama_demo", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("llama_demo-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(site), "LLAMA_DEMO_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [site / "bin" / "llama-demo", "serve", "--port", str(port), "--model", tiny_folder],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any(f":{port}" in line for line in process.stdout)
        where = subprocess.check_output(
            [sys.executable, "-c", "import llama_demo; print(llama_demo.__file__)"], cwd=tmp_path, env=environment
        )
        assert where.decode().startswith(str(site))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as page:
            assert "gradio" in page.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as health:
            assert health.status == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()

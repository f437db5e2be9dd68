"""The real app where the machine is not as it should be: no room, no right to write, a locale that does not exist, and
secrets that are wrong. It starts, says what is wrong and what to do, and loses nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_demo.checkpoints import gguf
from tests.ports import free_port
from tests.test_space import get, settled

ROOT = Path(__file__).resolve().parent.parent


def may_mount() -> bool:
    """Whether this process may mount what only its children see."""
    if shutil.which("unshare") is None or os.getuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


def read_only(folder: Path) -> str:
    """The command that makes it so for those who see its mounts."""
    at = shlex.quote(str(folder))
    return f"mount --bind {at} {at} && mount -o remount,bind,ro {at}"


@contextmanager
def started(
    tmp_path: Path, *options: str, mount: str = "", environment: dict[str, str] | None = None, says: str = ""
) -> Iterator[str]:
    """The address of the app with its cache in `tmp_path`, over which `mount` has put a file system; it says `says`
    before its page is up, and ends well."""
    port = free_port()
    app = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--cache-dir", str(tmp_path), *options]
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(app)}"] if mount else app,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if f"The page is at http://127.0.0.1:{port}" in line:
                break
        assert f"The page is at http://127.0.0.1:{port}" in said
        assert says in said
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="making a full or read-only disk takes root on Linux")
@pytest.mark.parametrize(
    ("options", "words"),
    [("ro", ["cannot be written", "--cache-dir"]), ("size=20m", ["disk is full", "Free some space"])],
)
def test_a_disk_that_cannot_hold_the_model_is_said_and_the_page_opens(
    tmp_path: Path, embedded_gguf: Path, options: str, words: list[str]
) -> None:
    with started(tmp_path, mount=f"mount -t tmpfs -o {options} tmpfs {shlex.quote(str(tmp_path))}") as address:
        assert get(address)[0] == 200
        status, said = settled(address)
        assert status == 503
        assert all(word in said["reason"] for word in [str(tmp_path), *words])
        assert get(f"{address}/v1/models")[0] == 200


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="making a read-only disk takes root on Linux")
def test_a_model_on_a_read_only_disk_is_served_and_one_in_a_read_only_cache_says_what_to_do(
    tmp_path: Path, embedded_gguf: Path
) -> None:
    """OpenVINO opens its file for writing, though it only reads it."""
    model, cache = tmp_path / "models" / "mine.gguf", tmp_path / "cache"
    model.parent.mkdir()
    cache.mkdir()
    gguf.requantize(embedded_gguf, model)
    with started(cache, "--model", str(model), mount=read_only(model.parent)) as address:
        assert settled(address)[0] == 200
        status, answer = get(f"{address}/v1/completions", {"prompt": "The capital of France is", "temperature": 0})
        assert status == 200
        assert "Paris" in answer["choices"][0]["text"]
    with started(cache, "--model", str(model), mount=read_only(tmp_path)) as address:
        assert get(address)[0] == 200
        status, said = settled(address)
        assert status == 503
        assert all(word in said["reason"] for word in (str(cache), "cannot be written", "--cache-dir"))


@pytest.mark.skipif(not may_mount(), reason="making a read-only disk takes root on Linux")
def test_where_nothing_at_all_can_be_written_it_ends_at_once_and_says_what_to_do() -> None:
    app = shlex.join([sys.executable, str(ROOT / "app.py"), "--port", str(free_port())])
    lock = "for at in / /tmp /var/tmp; do ! mountpoint -q $at || mount -o remount,bind,ro $at || exit; done"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{lock}; exec {app}"],
        env={name: value for name, value in os.environ.items() if name not in ("TMPDIR", "TEMP", "TMP")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 1
    assert done.stderr == "No folder for temporary files can be written. Name one that can with the variable TMPDIR.\n"


FILLED = """
import sys
from contextlib import suppress
from pathlib import Path
from llama_demo.checkpoints.convert import convert
from llama_demo.errors import DiskFull

source, disk, to = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def fill(done, total):
    if done and not (disk / "others").exists():
        with suppress(OSError):
            (disk / "others").write_bytes(bytes(65_000_000))

try:
    convert(source, disk / "model.gguf", to=to, report=fill)
except DiskFull as error:
    assert error.needed_bytes > error.free_bytes, error
    print(*(path.name for path in disk.iterdir()))
"""


@pytest.mark.skipif(not may_mount(), reason="making a full disk takes root on Linux")
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_disk_that_others_fill_during_a_conversion_is_said_and_nothing_half_written_stays(
    to: str, tmp_path: Path, tiny_folder: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = shlex.join([sys.executable, "-c", FILLED, str(tiny_folder), str(disk), to])
    mount = f"mount -t tmpfs -o size=60m tmpfs {shlex.quote(str(disk))}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {program}"], check=False, capture_output=True, text=True
    )
    assert done.stdout.split() == ["others"], done.stderr


@pytest.mark.slow
def test_a_locale_that_does_not_exist_changes_nothing(tmp_path: Path, embedded_gguf: Path) -> None:
    locale = {"LC_ALL": "xx_YY.UTF-8", "LANG": "xx_YY.UTF-8", "LANGUAGE": "xx"}
    with started(tmp_path, environment=locale) as address:
        assert settled(address)[0] == 200
        asked = {"prompt": "서울은 대한민국의", "max_tokens": 2, "temperature": 0, "echo": True}
        assert get(f"{address}/v1/completions", asked)[1]["choices"][0]["text"].startswith("서울은")


def test_the_command_line_prints_any_text_in_a_locale_that_does_not_exist(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llama_demo", "models", "--model", str(tmp_path / "모델 없음")],
        env={**os.environ, "LC_ALL": "xx_YY.UTF-8", "LANG": "xx_YY.UTF-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "모델 없음" in done.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LLAMA_DEMO_API_KEYS": "/nowhere/keys"}, "/nowhere/keys"),
        ({"LLAMA_DEMO_AUTH_FILE": "/nowhere/users"}, "/nowhere/users"),
    ],
)
def test_a_secrets_file_that_is_missing_ends_the_start_before_anybody_is_let_in(
    environment: dict[str, str], words: str
) -> None:
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(free_port())]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_a_network_a_public_link_is_given_up_and_the_page_is_served_here_with_its_limits(
    tmp_path: Path, embedded_gguf: Path
) -> None:
    refused = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    with started(tmp_path, "--share", environment=refused, says="The public link could not be made") as address:
        assert get(address)[0] == 200
        assert settled(address)[0] == 200
        assert get(f"{address}/metrics")[0] == 403

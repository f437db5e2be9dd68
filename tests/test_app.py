"""The whole app as an owner starts it and a program calls it: the real page, the real embedded model."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from gradio_client import Client

from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0


class App:
    """`python app.py` on a free port, with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "LLAMA_DEMO_CACHE_DIR": str(cache), "GRADIO_SSR_MODE": "true"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(self.port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_page(self) -> None:
        """Returns when the page is up: the app says so in its output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self.address in line:
                return
        raise AssertionError("the app ended before its page was up")

    def health(self) -> tuple[int, dict[str, str]]:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def running(folder: Path) -> Iterator[App]:
    """The app, with its page up; ended at once afterwards."""
    started = App(folder)
    started.wait_for_page()
    yield started
    started.process.kill()
    started.process.wait()
    assert started.process.stdout is not None
    started.process.stdout.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, embedded_gguf: Path) -> Iterator[App]:
    with running(tmp_path_factory.mktemp("app")) as started:
        yield started


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app.address, verbose=False)


def test_the_page_is_up_before_torch_is_imported(app: App) -> None:
    with urllib.request.urlopen(app.address, timeout=10) as page:
        assert page.status == 200
    assert "libtorch" not in Path(f"/proc/{app.process.pid}/maps").read_text()


def test_the_page_goes_out_small_to_a_browser_that_takes_it_so(app: App) -> None:
    asked = urllib.request.Request(app.address, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        sent = answer.read()
    whole = gzip.decompress(sent)
    assert whole.rstrip().endswith(b"</html>")
    assert len(sent) * 4 < len(whole)


def test_health_is_ours_though_the_environment_asks_for_server_side_rendering(app: App) -> None:
    status, answer = app.health()
    assert status == 200
    assert answer["status"] == "ok"


def test_chat_streams_to_a_program_that_names_every_parameter(client: Client) -> None:
    history = [
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": "I am a helpful assistant."},
    ]
    job = client.submit(
        message="Write a long story about a lighthouse.",
        history=history,
        model="smollm2-135m-instruct",
        system_prompt="You write stories.",
        max_new_tokens=60,
        temperature=0.8,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.1,
        seed=3,
        api_name="/chat",
    )
    texts = [text for text in job if text]
    assert len(set(texts)) > 1
    assert all(texts[-1].startswith(text) for text in texts)
    assert texts[-1] == job.result()


def test_at_temperature_0_the_embedded_model_knows_the_capital_of_south_korea(client: Client) -> None:
    reply = client.predict("What is the capital of South Korea?", temperature=0, api_name="/chat")
    assert "Seoul" in reply


def test_models_lists_the_embedded_model_as_ready_once_it_has_answered(client: Client) -> None:
    client.predict("Hi", temperature=0, max_new_tokens=1, api_name="/chat")
    (model,) = client.predict(api_name="/models")
    assert model["name"] == "smollm2-135m-instruct"
    assert model["state"] == "ready"
    assert model["device"] == "CPU"
    assert model["fits"]
    assert model["bytes"] > 145_000_000


def test_generate_continues_a_text_and_score_knows_how_likely_it_was(client: Client) -> None:
    prompt = "The capital of South Korea is"
    texts = client.predict(prompt, temperature=0, max_new_tokens=8, n=2, api_name="/generate")
    assert texts[0] == texts[1]
    assert texts[0].startswith(" ")
    assert "Seoul" in texts[0]
    tokens = client.predict(prompt + texts[0], top_k=2, api_name="/score")
    assert "".join(token["token"] for token in tokens) == prompt + texts[0]
    assert tokens[0]["logprob"] is None
    written = tokens[-len(client.predict(texts[0], api_name="/score")) :]
    assert written[0]["top"][0]["id"] == written[0]["id"]
    for token in written:  # the fast profile may take the second where two are all but equal
        assert token["id"] in [other["id"] for other in token["top"]]
    assert client.predict(prompt + texts[0], top_k=2, api_name="/score") == tokens


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"message": ""}, "The message is empty"),
        ({"message": "x" * 1_000_000}, "1000000 characters"),
        ({"message": "hi", "temperature": -1}, "temperature is -1"),
        ({"message": "hi", "model": "smollm3"}, "Did you mean smollm2-135m-instruct"),
        ({"message": "hi", "history": [{"role": "robot", "content": "x"}]}, "robot"),
    ],
)
def test_bad_input_is_one_sentence_and_disturbs_nothing(
    client: Client, app: App, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(Exception, match=words) as caught:
        client.predict(**arguments, api_name="/chat")
    assert "Traceback" not in str(caught.value)
    assert app.health()[0] == 200


def test_a_second_app_on_the_same_port_says_so_and_the_first_goes_on(app: App) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "app.py"), "--port", str(app.port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"Port {app.port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert app.health()[0] == 200


def test_a_killed_engine_is_an_error_and_the_next_request_gets_a_fresh_one(client: Client, app: App) -> None:
    client.predict("Hi", temperature=0, max_new_tokens=1, api_name="/chat")
    endless = {"temperature": 5, "top_p": 1, "top_k": 0}  # any token as likely as the one that would end the reply
    job = client.submit("Write a story.", max_new_tokens=2000, **endless, api_name="/chat")
    next(text for text in job if text)
    for child in psutil.Process(app.process.pid).children(recursive=True):
        child.kill()
    with pytest.raises(Exception, match="stopped working"):
        job.result(timeout=60)
    reply = client.predict("What is the capital of South Korea?", temperature=0, api_name="/chat")
    assert "Seoul" in reply


def test_terminated_it_ends_with_status_0_and_leaves_no_process(tmp_path: Path, embedded_gguf: Path) -> None:
    started = App(tmp_path)
    started.wait_for_page()
    wait_until(lambda: started.health()[1].get("state") == "ready", START_SECONDS)
    children = psutil.Process(started.process.pid).children(recursive=True)
    assert children
    started.process.send_signal(signal.SIGTERM)
    output, _ = started.process.communicate(timeout=60)
    assert started.process.returncode == 0, output
    assert "Traceback" not in output
    assert not psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]

"""The end of the app under load, and its beginning after a sudden end: the real app, the real embedded model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from gradio_client import Client
from gradio_client.client import Job

from tests.test_app import App
from tests.waiting import PATIENCE_SECONDS, wait_until

VISITORS = 16
MODEL_BYTES = 50_000_000
"""A file of more is the model's, made for this machine at the first start."""
ENDLESS = {"temperature": 5, "top_p": 1, "top_k": 0, "max_new_tokens": 2000}
EXAMPLES = [
    {"text": f"{adjective} {thing}", "label": label}
    for adjective, label in (("I love this", "good"), ("I hate this", "bad"))
    for thing in ("phone", "film", "hotel", "book", "song", "soup")
]


@pytest.fixture
def start(tmp_path: Path, embedded_gguf: Path) -> Iterator[Callable[[], App]]:
    """Starts the app, each time with the same cache; none is left running."""
    started: list[App] = []

    def begin() -> App:
        started.append(App(tmp_path))
        started[-1].wait_for_page()
        return started[-1]

    yield begin
    for app in started:
        app.process.kill()
        app.process.wait()


@pytest.mark.slow
def test_told_to_end_under_load_it_tells_every_visitor_and_leaves_nothing_running(
    start: Callable[[], App],
) -> None:
    app = start()
    client = Client(app.address, verbose=False)
    client.predict("Hi", max_new_tokens=1, api_name="/chat")
    children = psutil.Process(app.process.pid).children(recursive=True)
    asked = [client.submit("Write a story.", **ENDLESS, api_name="/chat") for _ in range(VISITORS)]
    wait_until(lambda: all(map(text_of, asked)))
    app.process.send_signal(signal.SIGTERM)
    wait_until(lambda: app.health()[0] != 200)
    assert "shutting down" in app.health()[1]["reason"]
    with pytest.raises(Exception, match="shutting down"):
        client.predict("Too late", api_name="/chat")
    ends = [one.exception(timeout=PATIENCE_SECONDS) for one in asked]
    output, _ = app.process.communicate(timeout=PATIENCE_SECONDS)
    assert app.process.returncode == 0, output
    assert "Traceback" not in output
    assert any(ends)
    assert all(end is None or "shutting down" in str(end) for end in ends), ends
    assert not psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]


def text_of(asked: Job) -> str:
    """What has come of a reply."""
    return "".join(asked.outputs()[-1:])


@pytest.mark.slow
def test_after_a_sudden_end_what_was_said_to_be_saved_is_there(start: Callable[[], App], tmp_path: Path) -> None:
    first = start()
    client = Client(first.address, verbose=False)
    client.predict(EXAMPLES, "kept", api_name="/train_classifier")
    verdicts = client.predict(["I love this car"], "kept", api_name="/classify")
    children = psutil.Process(first.process.pid).children(recursive=True)
    first.process.kill()
    first.process.communicate()
    assert not psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]
    converted = {path: path.stat().st_mtime for path in tmp_path.rglob("*") if path.stat().st_size > MODEL_BYTES}
    assert converted
    second = start()
    again = Client(second.address, verbose=False).predict(["I love this car"], "kept", api_name="/classify")
    assert again[0]["label"] == verdicts[0]["label"]
    assert again[0]["scores"] == pytest.approx(verdicts[0]["scores"], abs=1e-3)
    assert {path: path.stat().st_mtime for path in converted} == converted

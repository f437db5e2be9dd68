"""The end of the app under load, and its beginning after a sudden end: the real app, the real embedded model."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client

from tests.test_app import App
from tests.waiting import PATIENCE_SECONDS

VISITORS = 16
MOST_SECONDS = 30.0
"""The grace for what is in flight, the time to say so, and the end of the engine's process."""
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


def ask(client: Client) -> tuple[str, str]:
    """The text that came, and the error that ended it."""
    texts: list[str] = []
    try:
        texts.extend(client.submit("Write a story.", **ENDLESS, api_name="/chat"))
    except Exception as error:  # noqa: BLE001 whatever ended it is what the test looks at
        return "".join(texts[-1:]), str(error)
    return "".join(texts[-1:]), ""


@pytest.mark.slow
def test_told_to_end_under_load_it_tells_every_visitor_and_leaves_nothing_running(
    start: Callable[[], App],
) -> None:
    app = start()
    client = Client(app.address, verbose=False)
    client.predict("Hi", max_new_tokens=1, api_name="/chat")
    children = psutil.Process(app.process.pid).children(recursive=True)
    with ThreadPoolExecutor(VISITORS) as pool:
        asked: list[Future[tuple[str, str]]] = [pool.submit(ask, client) for _ in range(VISITORS)]
        while running(app) < VISITORS:
            assert not any(one.done() for one in asked)
        started = time.monotonic()
        app.process.send_signal(signal.SIGTERM)
        while app.health()[0] == 200:
            pass
        assert "shutting down" in app.health()[1]["reason"]
        with pytest.raises(Exception, match="shutting down"):
            client.predict("Too late", api_name="/chat")
        heard = [one.result(timeout=MOST_SECONDS) for one in asked]
    output, _ = app.process.communicate(timeout=MOST_SECONDS)
    assert time.monotonic() - started < MOST_SECONDS
    assert app.process.returncode == 0, output
    assert "Traceback" not in output
    for text, error in heard:
        assert text
        assert not error or "shutting down" in error
    assert not psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]


def running(app: App) -> int:
    text = httpx.get(f"{app.address}/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("llama_demo_requests_running "))
    return int(float(line.split()[1]))


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

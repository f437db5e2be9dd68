"""The page behind Gradio's own server, with a scripted runtime: what programs see, and what a vanished client costs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from llama_demo import ui
from tests.ui.scripted import Asked, echo, reply, scripted
from tests.ui.test_replies import question
from tests.waiting import happens_within

TEXTS = 2000


def endless(asked: Asked) -> list[Any]:
    if asked.turns[-1].content != "endless":
        return echo(asked)
    return [reply("word " * count) for count in range(1, TEXTS)]


@pytest.fixture(scope="module")
def app() -> Iterator[tuple[Any, Any]]:
    """The scripted runtime, and its page as it is served."""
    runtime = scripted(endless, pause_seconds=0.02)
    page = ui.build(runtime)
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **ui.launch_options(runtime))
    yield runtime, page
    page.close(verbose=False)


def test_a_program_streams_a_reply_with_every_argument_by_name(app: tuple[Any, Any]) -> None:
    runtime, page = app
    client = Client(page.local_url, verbose=False)
    job = client.submit(
        message="hello there",
        history=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        model="smollm2-135m-instruct",
        system_prompt="be kind",
        max_new_tokens=11,
        temperature=0.5,
        top_p=0.8,
        top_k=7,
        repetition_penalty=1.1,
        seed=3,
        api_name="/chat",
    )
    assert job.result(timeout=60) == "You said: hello there"
    assert job.outputs()[:2] == ["You", "You said:"]
    asked = runtime.generation.asked[-1]
    assert [turn.content for turn in asked.turns] == ["be kind", "a", "b", "hello there"]
    assert (asked.sampling.max_new_tokens, asked.sampling.temperature, asked.sampling.seed) == (11, 0.5, 3)


def test_only_the_message_is_needed(app: tuple[Any, Any]) -> None:
    assert Client(app[1].local_url, verbose=False).predict("hi", api_name="/chat") == "You said: hi"


def test_a_program_lists_the_models(app: tuple[Any, Any]) -> None:
    listed = Client(app[1].local_url, verbose=False).predict(api_name="/models")
    assert listed == [{"name": "smollm2-135m-instruct", "state": "ready"}]


def test_a_program_gets_an_error_as_one_sentence(app: tuple[Any, Any]) -> None:
    client = Client(app[1].local_url, verbose=False)
    with pytest.raises(AppError) as caught:
        client.predict("hi", temperature=77, api_name="/chat")
    assert str(caught.value) == "temperature is 77, but it must be a number from 0 to 5. Change it and send again."


@pytest.mark.parametrize("handler", ["reply", "chat"])
def test_a_client_that_vanishes_ends_its_request_within_a_second(app: tuple[Any, Any], handler: str) -> None:
    runtime, page = app
    index = next(index for index, fn in page.fns.items() if getattr(fn.fn, "__name__", "") == handler)
    asked_by_page = question(turns=[{"role": "user", "content": "endless"}])
    data = [asked_by_page] if handler == "reply" else ["endless", None, "", "", 9, 0, 0.9, 5, 1, None]
    listen_and_leave(page.local_url + "gradio_api", index, data)
    asked = runtime.generation.asked[-1]
    assert happens_within(1.0, lambda: asked.closed)


def listen_and_leave(api: str, index: int, data: list[Any]) -> None:
    """Starts a request, hears five updates of it, and drops the connection."""
    session = secrets.token_hex(6)
    with httpx.Client(timeout=30) as client:
        body = {"data": data, "fn_index": index, "session_hash": session}
        client.post(f"{api}/queue/join", json=body).raise_for_status()
        with client.stream("GET", f"{api}/queue/data", params={"session_hash": session}) as updates:
            heard = 0
            for line in updates.iter_lines():
                heard += "process_generating" in line
                if heard == 5:
                    return

"""The tools, as a real MCP client sees and calls them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from llama_demo import ui
from llama_demo.serve import launch
from tests.api.conftest import MODEL, Served
from tests.api.test_guard import page, users  # noqa: F401 (fixtures)
from tests.ports import free_port
from tests.ui.scripted import scripted


def session(
    address: str, work: Callable[[ClientSession], Awaitable[Any]], headers: dict[str, str] | None = None
) -> Any:
    """What `work` gives with a session at `address`."""

    async def run() -> Any:
        url = f"{address}/gradio_api/mcp/"
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            streamable_http_client(url, http_client=http) as (reads, writes, _),
            ClientSession(reads, writes) as opened,
        ):
            await opened.initialize()
            return await work(opened)

    return asyncio.run(run())


def call(address: str, tool: str, headers: dict[str, str] | None = None, **arguments: Any) -> tuple[bool, str]:
    """Whether the tool failed, and its text."""

    async def work(opened: ClientSession) -> Any:
        return await opened.call_tool(tool, arguments)

    result = session(address, work, headers)
    return result.isError, "".join(part.text for part in result.content)


def test_just_the_four_tools_are_offered_each_with_what_it_does_and_takes(served: Served) -> None:
    async def work(opened: ClientSession) -> Any:
        return (await opened.list_tools()).tools

    tools = session(served.address, work)
    assert {tool.name for tool in tools} == {"chat", "generate", "score", "classify"}
    for tool in tools:
        assert len(tool.description) > 100
        properties = tool.inputSchema["properties"]
        assert "asked" not in properties
        for name, one in properties.items():
            assert one.get("description"), f"{tool.name}: {name}"
    schema = httpx.get(f"{served.address}/gradio_api/mcp/schema").json()
    assert {tool["name"] for tool in schema} == {tool.name for tool in tools}
    named = httpx.get(f"{served.address}/gradio_api/info").json()["named_endpoints"]
    assert set(named) == {"/chat", "/generate", "/score", "/models", "/classify", "/train_classifier"}


def test_chat_and_generate_give_whole_texts(served: Served, client: Any) -> None:
    options: Any = {"temperature": 0, "max_new_tokens": 12}
    history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good morning."}]
    failed, reply = call(served.address, "chat", message="Where do the boats go?", history=history, **options)
    asked = [*history, {"role": "user", "content": "Where do the boats go?"}]
    got = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=12, temperature=0)
    assert (failed, reply) == (False, got.choices[0].message.content)
    failed, text = call(served.address, "generate", prompt="The harbour", **options)
    again = client.completions.create(model=MODEL, prompt="The harbour", max_tokens=12, temperature=0)
    assert (failed, text) == (False, again.choices[0].text)


def test_score_and_classify_give_lists(served: Served) -> None:
    failed, text = call(served.address, "score", text="The harbour lies below", top_k=2)
    assert not failed
    tokens = json.loads(text)
    assert "".join(token["token"] for token in tokens).endswith("The harbour lies below")
    assert len(tokens[-1]["top"]) == 2
    failed, text = call(served.address, "classify", texts=["a good day", "rain"], labels=["good", "bad"])
    assert not failed
    found = json.loads(text)
    assert [set(one["scores"]) for one in found] == [{"good", "bad"}] * 2
    assert sum(found[0]["scores"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("chat", {"message": "hi", "temperature": 77}, "temperature is 77"),
        ("chat", {"message": ""}, "The message is empty"),
        ("generate", {"prompt": "x", "model": "nothing"}, "no model named nothing"),
        ("models", {}, "Unknown tool"),
        ("reply", {}, "Unknown tool"),
        ("train_classifier", {"examples": []}, "Unknown tool"),
    ],
)
def test_a_call_that_fails_says_why_in_a_sentence(
    served: Served, tool: str, arguments: dict[str, Any], words: str
) -> None:
    failed, text = call(served.address, tool, **arguments)
    assert failed
    assert words in text
    assert "Traceback" not in text


def test_what_gradio_says_of_it_at_the_start_is_in_the_log_and_not_before_our_own_words(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_demo.observe.LOG.propagate", True)
    runtime = scripted(port=free_port())
    built = ui.build(runtime)
    with caplog.at_level("INFO", logger="llama_demo"):
        launch(built, runtime)
    built.close(verbose=False)
    assert capsys.readouterr().out == ""
    assert f"{built.local_url}gradio_api/mcp/" in caplog.text


def test_the_older_transport_is_there_too(served: Served) -> None:
    async def run() -> Any:
        async with (
            sse_client(f"{served.address}/gradio_api/mcp/sse") as (reads, writes),
            ClientSession(reads, writes) as opened,
        ):
            await opened.initialize()
            return await opened.list_tools()

    assert len(asyncio.run(run()).tools) == 4


def test_with_a_password_the_tools_answer_who_knows_it(page: str) -> None:  # noqa: F811
    failed, text = call(page, "chat", {"Authorization": "Bearer ann:open sesame"}, message="hello")
    assert (failed, text) == (False, "You said: hello")
    with pytest.raises(BaseException, match="unhandled errors"):
        call(page, "chat", message="hello")

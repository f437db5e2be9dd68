"""What the API refuses, in its own shape: nothing is dropped silently, and nothing inside is told."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from llama_demo.errors import Busy
from llama_demo.values import Completion
from tests.api.conftest import MODEL, Served

ASK = [{"role": "user", "content": "hello"}]


def refused(served: Served, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    answer = httpx.post(f"{served.v1}/{path}", json=body, timeout=30)
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?"))
    return answer.status_code, error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"5": 100}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a", "format": "wav"}),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("store", True),
        ("service_tier", "priority"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(served: Served, field: str, value: Any) -> None:
    status, error = refused(served, "chat/completions", {"model": MODEL, "messages": ASK, field: value})
    assert (status, error["param"], error["code"]) == (400, field, "unsupported_parameter")
    assert field in error["message"]


def test_what_changes_nothing_is_taken(client: Any) -> None:
    got = client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        max_completion_tokens=2,
        max_tokens=2,
        tools=[],
        tool_choice="none",
        parallel_tool_calls=True,
        response_format={"type": "text"},
        logit_bias={},
        modalities=["text"],
        store=False,
        service_tier="auto",
        user="somebody",
        metadata={"run": "7"},
        safety_identifier="x",
        prompt_cache_key="y",
        stop=None,
        seed=None,
        reasoning_effort="none",
    )
    assert got.usage.completion_tokens <= 2


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temperature": 77}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "unsupported_parameter"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages.0.content",
            "unsupported_parameter",
        ),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
        ({"top_logprobs": 3, "logprobs": True, "stream": True}, "top_logprobs", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "unsupported_parameter"),
        ({"stream": True, "stream_options": {"speed": 1}}, "stream_options.speed", "unknown_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"metadata": {"run": 7}}, "metadata.run", "invalid_value"),
        ({"metadata": {"": None}}, "metadata", "invalid_value"),
    ],
)
def test_a_wrong_field_of_a_chat_is_named(served: Served, change: dict[str, Any], param: str, code: str) -> None:
    status, error = refused(served, "chat/completions", {"model": MODEL, "messages": ASK} | change)
    assert (status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


def test_an_empty_conversation_is_called_so_and_an_empty_name_is_the_default_model(served: Served) -> None:
    _, error = refused(served, "chat/completions", {"model": "", "messages": []})
    assert error["message"].startswith("messages is empty, but it must be a list of one or more.")
    _, error = refused(
        served, "chat/completions", {"model": "", "messages": [{"role": "user", "content": "a " * 9000}]}
    )
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 2, "stream": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1, 2], "x"]}, "prompt"),
        ({"prompt": [[-1]]}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(served: Served, change: dict[str, Any], param: str) -> None:
    status, error = refused(served, "completions", {"model": MODEL, "prompt": "x"} | change)
    assert (status, error["param"]) == (400, param)


def test_a_prompt_that_is_too_long_is_refused_and_never_cut(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=[5] * 600)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "harbour " * 600}])
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_model_is_404_with_the_nearest_name(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean tiny-llama") as caught:
        client.models.retrieve("tiny-lama")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="Did you mean tiny-llama"):
        client.chat.completions.create(model="tiny-lama", messages=ASK, stream=True)


def test_a_busy_server_says_when_to_come_back(client: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise Busy(9, 3.4)

    monkeypatch.setattr(served.runtime.generation, "complete", full)
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=ASK, stream=stream)
        assert caught.value.response.headers["retry-after"] == "4"


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_expected_is_500_without_a_word_of_it(
    client: Any, served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(served.runtime.generation, "complete", broken)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=ASK, stream=stream)
    assert "secret" not in caught.value.response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_a_body_that_is_no_object_is_400(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{served.v1}/completions", content=body, headers=headers, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_form_of_another_site_is_not_read(served: Served) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x"})
    answer = httpx.post(f"{served.v1}/completions", content=body, headers={"content-type": "text/plain"}, timeout=30)
    assert answer.status_code == 400


def test_a_body_that_is_too_long_is_413_whether_it_says_so_or_not(served: Served) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    declared = httpx.post(f"{served.v1}/completions", content=b" " * 10_000_000, timeout=30)
    hidden = httpx.post(
        f"{served.v1}/completions", content=endless(), headers={"content-type": "application/json"}, timeout=30
    )
    for answer in (declared, hidden):
        assert answer.status_code == 413
        assert "2 MB" in answer.json()["error"]["message"]


def test_paths_and_methods_that_are_not_there_are_answered_in_the_same_shape(served: Served) -> None:
    assert httpx.get(f"{served.v1}/embeddings").json()["error"]["message"].startswith("There is nothing at /v1/emb")
    answer = httpx.get(f"{served.v1}/completions")
    assert answer.status_code == 405
    assert "GET" in answer.json()["error"]["message"]


def test_an_error_after_the_first_words_is_the_streams_last_event(
    client: Any, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = served.runtime.generation.complete

    async def breaks(*arguments: Any, **options: Any) -> Any:
        async for update in real(*arguments, **options):
            yield update
            if isinstance(update, Completion) and update.continuations[0].text:
                raise RuntimeError("/secret/path")

    monkeypatch.setattr(served.runtime.generation, "complete", breaks)
    stream = client.completions.create(model=MODEL, prompt="The", max_tokens=300, temperature=5, stream=True)
    with pytest.raises(openai.APIError, match="Something went wrong"):
        list(stream)

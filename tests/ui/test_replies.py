"""The chat tab's handlers, called as plain functions."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from llama_demo.errors import Busy, EngineCrashed
from llama_demo.messages import messages
from llama_demo.ui.asked import View, figures, loading_words, waiting_words
from llama_demo.ui.replies import Replies, read_question
from llama_demo.values import LoadProgress, Sampling, Speed, Waiting
from tests.ui.scripted import echo, reply, scripted

SAMPLING = {"temperature": 0, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1, "max_new_tokens": 9, "seed": None}


def question(**data: Any) -> dict[str, Any]:
    return {
        "id": "a" * 32,
        "language": "en",
        "turns": [{"role": "user", "content": "hello there"}],
        "model": "smollm2-135m-instruct",
        "system_prompt": "",
        "sampling": dict(SAMPLING),
        "continue_last": False,
        **data,
    }


def views(runtime: Any, request: Any) -> list[View]:
    async def collect() -> list[View]:
        return [view async for view in Replies(runtime).reply(request)]

    return asyncio.run(collect())


def test_a_reply_streams_in_steps_and_ends_with_its_figures() -> None:
    seen = views(scripted(), question())
    assert [view["text"] for view in seen] == [
        "You",
        "You said:",
        "You said: hello",
        "You said: hello there",
        "You said: hello there",
    ]
    assert [view["done"] for view in seen] == [False] * 4 + [True]
    assert seen[-1]["figures"] == {"first": 0.08, "speed": 94.0, "written": 4, "read": 40}
    assert seen[-1]["prompt"].startswith("<|im_start|>")
    assert (seen[-1]["used"], seen[-1]["room"]) == (44, 2048)


def test_the_prompt_travels_once_however_long_the_reply_is() -> None:
    seen = views(scripted(), question())
    assert [("prompt" in view) for view in seen] == [False] * (len(seen) - 1) + [True]


def test_everything_the_page_chose_reaches_the_generation() -> None:
    runtime = scripted()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    sampling: dict[str, Any] = {**SAMPLING, "seed": 12, "top_k": 3, "temperature": 1.5}
    views(runtime, question(turns=turns, system_prompt="be kind", sampling=sampling, continue_last=True))
    asked = runtime.generation.asked[0]
    assert [(turn.role, turn.content) for turn in asked.turns] == [
        ("system", "be kind"),
        ("user", "a"),
        ("assistant", "b"),
    ]
    assert asked.continue_last
    assert asked.sampling == Sampling(**sampling)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (None, "request"),
        ("text", "request"),
        ([], "request"),
        ({}, "sampling"),
        (question(sampling={**SAMPLING, "temperature": "hot"}), "temperature"),
        (question(sampling={**SAMPLING, "temperature": float("inf")}), "temperature"),
        (question(sampling={**SAMPLING, "evil": 1}), "evil"),
        (question(turns="nothing"), "history"),
        (question(turns=[{"role": "alien", "content": "x"}]), "alien"),
        (question(turns=[{"role": "user"}]), "content"),
        (question(turns=[{"role": "user", "content": " \n"}]), "empty"),
        (question(turns=[{"role": "user", "content": "\ud800"}]), "broken character"),
        (question(model=5), "model"),
        (question(system_prompt=[1]), "system_prompt"),
    ],
)
def test_bad_input_becomes_one_sentence_in_place(request_: Any, words: str) -> None:
    seen = views(scripted(), request_)
    assert len(seen) == 1
    assert seen[0]["done"]
    assert words in seen[0]["error"]
    assert "\n" not in seen[0]["error"]
    assert "Traceback" not in seen[0]["error"]


@pytest.mark.parametrize("error", [EngineCrashed("x"), Busy(3, 4.0), RuntimeError("secret words of a library")])
def test_a_failure_after_some_text_says_so_and_never_in_a_library_s_words(error: Exception) -> None:
    seen = views(scripted(lambda _: [reply("half a"), error]), question())
    assert seen[0]["text"] == "half a"
    assert seen[-1]["error"] == messages().error(error)
    assert "secret" not in json.dumps(seen)


def test_stop_ends_the_reply_and_only_that_one() -> None:
    runtime = scripted(lambda asked: [reply("word " * count) for count in range(1, 500)], pause_seconds=0.001)
    replies = Replies(runtime)

    async def read(identity: str, stop_at: int | None) -> list[View]:
        seen = []
        async for view in replies.reply(question(id=identity)):
            seen.append(view)
            if len(seen) == stop_at:
                replies.stoppers.stop(identity)
        return seen

    async def both() -> tuple[list[View], list[View]]:
        one, other = await asyncio.gather(read("one", 5), read("other", None))
        return one, other

    one, other = asyncio.run(both())
    assert len(one) == 6
    assert one[-1]["finish"] == "cancelled"
    assert one[-1]["done"]
    assert len(other) == 500


@pytest.mark.parametrize("identity", [None, 5, "unknown", ["x"]])
def test_stopping_what_is_not_there_does_nothing(identity: Any) -> None:
    Replies(scripted()).stoppers.stop(identity)


def test_a_closed_page_ends_the_request() -> None:
    runtime = scripted(lambda asked: [reply("word " * count) for count in range(1, 500)])

    async def leave() -> None:
        async with aclosing(Replies(runtime).reply(question())) as stream:
            async for _ in stream:
                break

    asyncio.run(leave())
    assert runtime.generation.asked[0].closed


def test_an_update_that_says_nothing_new_is_the_same_view() -> None:
    waiting = Waiting(3, None)
    seen = views(scripted(lambda asked: [waiting, waiting, *echo(asked)]), question())
    assert seen[0] is seen[1]


def test_waiting_tells_the_place_and_the_seconds() -> None:
    words = messages()
    assert waiting_words(Waiting(3, None), words) == "You are number 3 in the line."
    assert waiting_words(Waiting(3, 4.2), words) == "You are number 3 in the line, about 4 s to go."
    assert waiting_words(Waiting(1, 0.01), words) == "You are number 1 in the line, about 1 s to go."


def test_loading_tells_bytes_and_seconds() -> None:
    words = messages()
    assert loading_words(LoadProgress("warm_up", seconds=2.4), words) == "warming up · 2 s"
    assert loading_words(LoadProgress("convert", 45_000_000, None, seconds=3), words) == "converting · 45 MB · 3 s"
    done = LoadProgress("download", 45_000_000, 145_000_000, seconds=3)
    assert loading_words(done, words) == "downloading · 45 MB of 145 MB · 3 s"
    assert "number 2" in loading_words(LoadProgress("wait", place=2), words)


def test_figures_that_there_are_none_of_are_left_out() -> None:
    assert figures(None, 0) == {"first": None, "speed": None, "written": 0}
    assert figures(Speed(0.1, 0.0), 1) == {"first": 0.1, "speed": None, "written": 1}


def test_what_was_left_out_is_said() -> None:
    seen = views(scripted(lambda _: [reply("x", dropped_turns=4, finish="stop")]), question())
    assert seen[0]["dropped"] == 4


def test_the_default_model_answers_where_none_is_named() -> None:
    assert read_question(question(model=""), "the-default").model == "the-default"

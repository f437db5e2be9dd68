"""The text tab's handlers, called as plain functions over a generation that follows a script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest

from llama_demo.errors import EngineCrashed, PromptTooLong
from llama_demo.messages import messages
from llama_demo.ui.asked import View
from llama_demo.ui.completions import TOP_K, Completions, score_columns
from llama_demo.ui.text import PRESETS, SCRIPTS, TEMPLATE, page_words
from llama_demo.values import (
    Completion,
    CompletionRequest,
    Continuation,
    LoadProgress,
    Sampling,
    ScoredText,
    ScoredToken,
    Speed,
    TokenAlternative,
    Turn,
    Waiting,
)
from tests.ui.scripted import scripted

SAMPLING = {
    "temperature": 0,
    "top_p": 0.9,
    "top_k": 50,
    "min_p": 0.1,
    "repetition_penalty": 1,
    "max_new_tokens": 9,
    "seed": 4,
}


class ScriptedCompletions:
    """Continues with `words`, one an update, and scores any text as `SCORED`."""

    def __init__(self, words: Sequence[str] = (" one", " two", " three"), failing: Exception | None = None) -> None:
        self.words = words
        self.failing = failing
        self.completed: list[tuple[str, CompletionRequest]] = []
        self.scored: list[tuple[Any, str, int]] = []
        self.closed = 0

    async def complete(
        self, request: CompletionRequest, *, model: str, stopper: Any
    ) -> AsyncGenerator[LoadProgress | Waiting | Completion, None]:
        self.completed.append((model, request))
        try:
            yield Waiting(0, None)
            await asyncio.sleep(0.001)
            for count in range(1, len(self.words) + 1):
                if stopper.stopped:
                    yield made(request, self.words[: count - 1], "cancelled")
                    return
                yield made(request, self.words[:count])
                await asyncio.sleep(0)
            if self.failing is not None and model == "failing":
                raise self.failing
            yield made(request, self.words, "stop")
        finally:
            self.closed += 1

    async def score(
        self, source: Any, *, model: str, top_k: int, stopper: Any
    ) -> AsyncGenerator[LoadProgress | Waiting | ScoredText, None]:
        self.scored.append((source, model, top_k))
        yield LoadProgress("load", seconds=2)
        yield Waiting(0, None)
        if not stopper.stopped:
            yield SCORED


def made(request: CompletionRequest, words: Sequence[str], finish: Any = None) -> Completion:
    ids = tuple(range(len(words)))
    logprobs = (-0.5,) * len(words)
    seed = request.sampling.seed or 0
    parts = tuple(Continuation("".join(words), ids, logprobs, finish, seed + index) for index in range(request.n))
    return Completion("smollm2-135m-instruct", "seen", (7, 8), 3, 2048, parts, Speed(0.08, 94.0), finish is not None)


SCORED = ScoredText(
    "smollm2-135m-instruct",
    (
        ScoredToken(5, "A", "A", None, None, None, ()),
        ScoredToken(
            6, "<0xE2>", "", -1.25, 2, 1.5, (TokenAlternative(9, " b", -0.75), TokenAlternative(6, "<0xE2>", -1.25))
        ),
        ScoredToken(7, "<0x82>", "", float("-inf"), 2, 0.0, (TokenAlternative(9, " b", -0.1),)),
    ),
    3.5,
)


def side(**data: Any) -> dict[str, Any]:
    return {"model": "smollm2-135m-instruct", "prompt": "Once", "sampling": dict(SAMPLING), **data}


def asked(*sides: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": "a" * 32, "language": "en", "kind": "complete", "sides": list(sides), **data}


def tab(generation: ScriptedCompletions | None = None) -> tuple[Completions, ScriptedCompletions]:
    runtime = scripted()
    runtime.generation = generation or ScriptedCompletions()
    return Completions(runtime), runtime.generation


def views(completions: Completions, request: Any) -> list[View]:
    async def collect() -> list[View]:
        return [view async for view in completions.answer(request)]

    return asyncio.run(collect())


def test_a_continuation_streams_in_and_its_ids_come_once_at_the_end() -> None:
    completions, _ = tab()
    seen = views(completions, asked(side()))
    sides = [view["sides"][0] for view in seen]
    texts = [one["parts"][0]["text"] for one in sides if one["parts"]]
    assert texts[0] == " one"
    assert texts[-1] == " one two three"
    assert sides[0]["note"] == messages()("text.reading")
    assert [view["done"] for view in seen] == [False] * (len(seen) - 1) + [True]
    last = sides[-1]
    assert (last["prompt_ids"], last["parts"][0]["ids"]) == ([7, 8], [0, 1, 2])
    assert last["figures"] == {"first": 0.08, "speed": 94.0, "written": 3}
    assert (last["seed"], last["finish"], last["trimmed"]) == (4, "stop", 3)
    assert all("ids" not in one["parts"][0] for one in sides[1:4])


def test_a_page_that_takes_its_views_late_has_the_end_of_the_text_all_the_same() -> None:
    completions, generation = tab()

    async def late() -> list[View]:
        seen = []
        async with aclosing(completions.answer(asked(side()))) as answer:
            async for view in answer:
                seen.append(view)
                while not generation.closed:
                    await asyncio.sleep(0)
        return seen

    first, last = asyncio.run(late())
    assert not first["done"]
    assert last["done"]
    assert last["sides"][0]["parts"][0]["text"] == " one two three"
    assert last["sides"][0]["prompt_ids"] == [7, 8]


def test_everything_the_page_chose_reaches_the_generation() -> None:
    completions, generation = tab()
    views(completions, asked(side(prompt=[1, 2], stops=["\n", "end"], n=3, trim=True)))
    views(completions, asked(side(as_chat=True)))
    model, request = generation.completed[0]
    assert model == "smollm2-135m-instruct"
    assert request == CompletionRequest((1, 2), Sampling(**SAMPLING), ("\n", "end"), 3, as_chat=False, trim=True)  # type: ignore[arg-type]
    assert generation.completed[1][1].as_chat


def test_alternatives_come_side_by_side_each_with_its_own_seed() -> None:
    completions, _ = tab()
    parts = views(completions, asked(side(n=3)))[-1]["sides"][0]["parts"]
    assert [one["seed"] for one in parts] == [4, 5, 6]
    assert [one["text"] for one in parts] == [" one two three"] * 3


def test_a_comparison_streams_both_sides_together() -> None:
    completions, generation = tab()
    seen = views(completions, asked(side(), side(model="other", as_chat=True)))
    assert any(len(view["sides"]) == 2 and all(one["parts"] for one in view["sides"]) for view in seen[:-1])
    assert all(one["done"] for one in seen[-1]["sides"])
    assert [model for model, _ in generation.completed] == ["smollm2-135m-instruct", "other"]


def test_one_side_that_fails_says_so_in_its_place_and_the_other_goes_on() -> None:
    completions, _ = tab(ScriptedCompletions(failing=EngineCrashed("failing")))
    last = views(completions, asked(side(model="failing"), side()))[-1]
    assert last["sides"][0]["error"] == messages().error(EngineCrashed("failing"))
    assert last["sides"][0]["parts"][0]["text"] == " one two three"
    assert not last["sides"][1]["error"]
    assert last["sides"][1]["parts"][0]["finish"] == "stop"


@pytest.mark.parametrize("error", [PromptTooLong(5000, 4096), RuntimeError("secret words of a library")])
def test_a_failure_is_a_sentence_and_never_in_a_library_s_words(error: Exception) -> None:
    completions, _ = tab(ScriptedCompletions(failing=error))
    seen = views(completions, asked(side(model="failing")))
    assert seen[-1]["sides"][0]["error"] == messages().error(error)
    assert "secret" not in json.dumps(seen)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (None, "sides"),
        ("text", "sides"),
        ({}, "sides"),
        (asked(), "sides"),
        (asked(side(), side(), side()), "sides"),
        (asked(5), "request"),  # type: ignore[arg-type]
        (asked(side(sampling=None)), "sampling"),
        (asked(side(sampling={**SAMPLING, "evil": 1})), "evil"),
        (asked(side(sampling={**SAMPLING, "min_p": 7})), "min_p"),
        (asked(side(prompt=None)), "prompt"),
        (asked(side(prompt=[-1])), "prompt"),
        (asked(side(prompt="\ud800")), "broken character"),
        (asked(side(model=5)), "model"),
        (asked(side(n=99)), "n is 99"),
        (asked(side(stops=[""])), "stop"),
        (asked(side(prompt=[1], as_chat=True)), "as_chat"),
        (asked(kind="score", turns="nothing"), "history"),
        (asked(kind="score", source="x", model=[1]), "model"),
    ],
)
def test_bad_input_becomes_one_sentence_in_place(request_: Any, words: str) -> None:
    completions, _ = tab()
    seen = views(completions, request_)
    assert len(seen) == 1
    assert seen[0]["done"]
    assert words in seen[0]["error"]
    assert "\n" not in seen[0]["error"]


def test_stop_ends_the_continuation_and_only_that_one() -> None:
    completions, _ = tab(ScriptedCompletions([" word"] * 500))

    async def read(identity: str, stop_at: int | None) -> list[View]:
        seen = []
        async for view in completions.answer(asked(side(), id=identity)):
            seen.append(view)
            if len(seen) == stop_at:
                completions.stoppers.stop(identity)
        return seen

    async def both() -> tuple[list[View], list[View]]:
        one, other = await asyncio.gather(read("one", 5), read("other", None))
        return one, other

    one, other = asyncio.run(both())
    assert one[-1]["sides"][0]["parts"][0]["finish"] == "cancelled"
    assert one[-1]["done"]
    assert one[-1]["sides"][0]["parts"][0]["count"] < 20
    assert other[-1]["sides"][0]["parts"][0]["count"] == 500


@pytest.mark.parametrize("identity", [None, 5, "unknown", ["x"]])
def test_stopping_what_is_not_there_does_nothing(identity: Any) -> None:
    tab()[0].stoppers.stop(identity)


def test_a_closed_page_ends_both_sides() -> None:
    completions, generation = tab(ScriptedCompletions([" word"] * 500))

    async def leave() -> None:
        async with aclosing(completions.answer(asked(side(), side()))) as stream:
            async for _ in stream:
                break
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert generation.closed == len(generation.completed)


def test_scores_come_as_columns_with_the_progress_before_them() -> None:
    completions, generation = tab()
    seen = views(completions, asked(kind="score", source="A…"))
    assert seen[0]["note"] == "loading · 2 s"
    assert seen[1]["note"] == messages()("text.scoring")
    columns = json.loads(seen[-1]["scores"])
    assert columns["names"] == {"5": "A", "6": "<0xE2>", "7": "<0x82>", "9": " b"}
    assert columns["texts"] == ["A", "", ""]
    assert columns["logprobs"] == [None, -1.25, None]
    assert columns["top_ids"] == [[], [9, 6], [9]]
    assert columns["perplexity"] == 3.5
    assert generation.scored == [("A…", "smollm2-135m-instruct", TOP_K)]


def test_a_conversation_is_scored_as_its_turns_with_the_system_prompt() -> None:
    completions, generation = tab()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    views(completions, asked(kind="score", turns=turns, system_prompt="be kind"))
    assert generation.scored[0][0] == (Turn("system", "be kind"), Turn("user", "a"), Turn("assistant", "b"))


def test_4096_tokens_travel_in_less_than_a_megabyte() -> None:
    top = tuple(TokenAlternative(40_000 + place, " harbour", -3.14159265) for place in range(TOP_K))
    tokens = tuple(ScoredToken(45_678, " harbour", " harbour", -3.14159265, 123, 4.56789, top) for _ in range(4096))
    assert len(json.dumps(score_columns(ScoredText("m", tokens, 9.9)))) < 1_000_000


def test_every_word_of_the_template_and_the_scripts_is_in_the_table() -> None:
    words = page_words(messages())
    folder = resources.files("llama_demo.ui")
    scripts = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    named = set(re.findall(r'data-word="(\w+)"', TEMPLATE)) | set(re.findall(r"\bwords\.(\w+)", scripts))
    assert named
    assert named <= words.keys()
    assert all(f"preset_{name}" in words and f"preset_{name}_text" in words for name in PRESETS)


def test_what_the_presets_choose_is_within_bounds() -> None:
    for preset in PRESETS.values():
        Sampling(**{name: value for name, value in preset.items() if name != "stops"})


def test_the_token_colours_are_ordered_by_lightness_and_their_letters_can_be_read() -> None:
    css = (resources.files("llama_demo.ui") / "text.css").read_text(encoding="utf-8")
    blocks = re.findall(r"#text-column \{\s+--shade-0.*?\}", css, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--(\w+-\d): (#\w{6});", block))
        lights = [luminance(colours[f"shade-{index}"]) for index in range(6)]
        assert lights in (sorted(lights), sorted(lights, reverse=True))
        assert min(abs(one - other) for one, other in pairwise(lights)) > 0.01
        for index in range(6):
            assert contrast(colours[f"shade-{index}"], colours[f"ink-{index}"]) >= 4.5, index


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, 0 to 1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)

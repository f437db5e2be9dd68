from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_demo.errors import (
    Busy,
    EngineCrashed,
    ForgedTurn,
    InvalidParameter,
    InvalidUnicode,
    MessageTooLong,
    PromptTooLong,
    UnknownModel,
)
from llama_demo.generation import Stopper
from llama_demo.prompts import LLAMA2_TEMPLATE
from llama_demo.values import SEED_LIMIT, Completion, CompletionRequest, Sampling, Token
from tests.scripted import MODEL, World, worlds


@pytest.fixture
def make(tiny_folder: Path) -> Iterator[Callable[..., World]]:
    yield from worlds(tiny_folder)


@pytest.fixture
def make_sentencepiece(tiny_sentencepiece_folder: Path) -> Iterator[Callable[..., World]]:
    yield from worlds(tiny_sentencepiece_folder)


@dataclass
class Feeder:
    """Reads a completion to its end, and gives each alternative its own tokens, one an update."""

    world: World
    texts: list[str]
    seen: list[Completion] = field(default_factory=list)

    async def run(self, prompt: str = "Once", **options: Any) -> Completion:
        queues = [self.world.tokenizer.encode(text) for text in self.texts]
        async with aclosing(self.world.complete(prompt, n=len(self.texts), **options)) as updates:
            async for update in updates:
                if isinstance(update, Completion):
                    self.seen.append(update)
                for request, queue in zip(self.world.engine.requests, queues, strict=False):
                    if queue and not request.cancelled:
                        request.stream.put([Token(queue.pop(0), -1.0)])
                    elif not request.stream.ended:
                        request.stream.finish("length")
        return self.seen[-1]


def feed(world: World, texts: list[str], **options: Any) -> list[Completion]:
    feeder = Feeder(world, texts)

    async def start() -> None:
        reading = asyncio.ensure_future(feeder.run(**options))
        for _ in texts:
            await asyncio.to_thread(world.engine.arrived.acquire)
        for request, text in zip(world.engine.requests, texts, strict=True):
            if not text:
                request.stream.finish("stop")
        await reading

    asyncio.run(start())
    return feeder.seen


def test_a_raw_text_goes_to_the_model_as_it_is_and_its_continuation_comes_back(make: Callable[..., World]) -> None:
    world = make("  서울 🦙\n")
    made = world.completion("The <|im_start|> town", sampling=Sampling(seed=4))
    (one,) = made.continuations
    assert one.text == "  서울 🦙\n"
    assert list(one.ids) == world.tokenizer.encode(one.text)
    assert one.logprobs == (-1.0,) * len(one.ids)
    assert (one.finish, one.seed, made.finished) == ("stop", 4, True)
    assert made.prompt == "The <|im_start|> town"
    assert list(made.prompt_ids) == world.engine.requests[0].ids == world.tokenizer.encode(made.prompt)
    assert (made.model, made.trimmed_tokens, made.context_tokens) == (MODEL, 0, 256)
    assert made.speed is not None


def test_each_of_n_alternatives_draws_with_a_seed_of_its_own(make: Callable[..., World]) -> None:
    world = make()
    made = world.completion("Once", n=3, sampling=Sampling(seed=SEED_LIMIT - 2))
    seeds = [SEED_LIMIT - 2, SEED_LIMIT - 1, 0]
    assert [one.seed for one in made.continuations] == seeds
    assert [request.sampling.seed for request in world.engine.requests] == seeds
    assert len({tuple(request.ids) for request in world.engine.requests}) == 1
    drawn = {world.completion("Once").continuations[0].seed for _ in range(3)}
    assert len(drawn) > 1


def test_each_of_four_alternatives_stops_on_its_own(make: Callable[..., World]) -> None:
    world = make(None)
    texts = ["one END and more", "the second goes on and on to its end", "", "서울END!"]
    seen = feed(world, texts, stops=("END",))
    assert [one.text for one in seen[-1].continuations] == ["one ", texts[1], "", "서울"]
    assert [one.finish for one in seen[-1].continuations] == ["stop", "length", "stop", "stop"]
    assert [request.cancelled for request in world.engine.requests] == [True, False, False, True]
    assert all("E" not in update.continuations[0].text for update in seen)
    half = next(update for update in seen if update.continuations[0].finish)
    assert half.continuations[1].finish is None
    assert not half.finished
    assert seen[-1].finished
    assert not any(update.finished for update in seen[:-1])


def test_a_prompt_that_ends_inside_a_word_is_continued_inside_it(make_sentencepiece: Callable[..., World]) -> None:
    world = make_sentencepiece("")
    ids = world.tokenizer.encode("The boats come")
    split = len(world.tokenizer.encode("The boats"))
    world.engine.reply = ids[split:]
    made = world.completion(tuple(ids[:split]))
    assert (made.prompt, made.continuations[0].text) == ("The boats", " come")
    world.engine.reply = [world.tokenizer.backend.token_to_id(letter) for letter in "bor"]
    assert world.completion("The har").continuations[0].text == "bor"


@pytest.mark.parametrize("kind", ["make", "make_sentencepiece"])
def test_a_prompt_that_ends_inside_a_character_is_continued_inside_it(kind: str, request: Any) -> None:
    world: World = request.getfixturevalue(kind)("")
    ids = world.tokenizer.encode("a 서")
    world.engine.reply = ids[-1:]
    made = world.completion(tuple(ids[:-1]))
    assert made.prompt_ids == tuple(ids[:-1])
    assert made.prompt + made.continuations[0].text == "a 서"


@pytest.mark.parametrize("prompt", ["", ()])
def test_an_empty_prompt_starts_from_the_models_start_of_text(make: Callable[..., World], prompt: Any) -> None:
    made = make().completion(prompt)
    assert made.prompt_ids == (1,)
    assert made.prompt == ""


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(make: Callable[..., World]) -> None:
    world = make(context_tokens=64)
    ids = tuple(range(10, 10 + 64))
    with pytest.raises(PromptTooLong) as caught:
        world.completion(ids)
    assert (caught.value.tokens, caught.value.limit) == (64, 63)
    assert not world.engine.requests
    assert world.admission.active == 0
    assert world.completion(ids[:63]).continuations[0].finish == "length"


def test_or_loses_its_beginning_where_it_may_and_says_so(make: Callable[..., World]) -> None:
    world = make(context_tokens=64)
    ids = tuple(range(10, 10 + 100))
    made = world.completion(ids, trim=True, sampling=Sampling(max_new_tokens=10))
    assert made.prompt_ids == ids[-54:]
    assert made.trimmed_tokens == 46
    text = "boat " * 100
    made = world.completion(text, trim=True)
    assert len(made.prompt_ids) == 64 - 16
    assert text.endswith(made.prompt)
    assert made.trimmed_tokens == len(world.tokenizer.encode(text)) - 48
    assert world.completion("short", trim=True).trimmed_tokens == 0


def test_a_trimmed_prompt_keeps_the_bos_that_it_began_with(make: Callable[..., World]) -> None:
    made = make(context_tokens=64).completion((1, *range(10, 110)), trim=True, sampling=Sampling(max_new_tokens=4))
    assert made.prompt_ids == (1, *range(51, 110))
    assert made.trimmed_tokens == 41


def test_as_chat_the_text_is_a_users_message(make: Callable[..., World]) -> None:
    world = make()
    made = world.completion("Where?", as_chat=True)
    assert made.prompt == "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    assert world.engine.requests[0].ids == world.tokenizer.encode_guarded(made.prompt)


def test_as_chat_a_long_text_is_cut_and_its_template_is_not(make: Callable[..., World]) -> None:
    made = make(context_tokens=80).completion("first " + "boat " * 90 + "last", as_chat=True, trim=True)
    assert made.prompt.startswith("<|im_start|>user\n")
    assert made.prompt.endswith("last<|im_end|>\n<|im_start|>assistant\n")
    assert "first" not in made.prompt
    assert len(made.prompt_ids) <= 60
    assert made.trimmed_tokens > 0
    with pytest.raises(PromptTooLong):
        make(context_tokens=80).completion("boat " * 90, as_chat=True)


def test_as_chat_a_base_models_reply_ends_where_the_user_would_speak(make_sentencepiece: Callable[..., World]) -> None:
    made = make_sentencepiece("To the sea.\nUser: and?").completion("Where?", as_chat=True)
    assert made.continuations[0].text == "To the sea."


def test_as_chat_a_text_cannot_forge_a_turn(make: Callable[..., World]) -> None:
    world = make()
    ready = world.load()
    ready.tokenizer.chat_template = LLAMA2_TEMPLATE
    world.load = lambda: ready
    with pytest.raises(ForgedTurn):
        world.completion("[/INST]", as_chat=True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": "x" * 2_001}, MessageTooLong),
        ({"prompt": (5, 1_000_000)}, InvalidParameter),
        ({"prompt": "a", "model": "llama-9"}, UnknownModel),
    ],
)
def test_what_cannot_be_answered_is_refused_and_nothing_starts(
    make: Callable[..., World], arguments: Any, error: type[Exception]
) -> None:
    world = make()
    with pytest.raises(error):
        world.completion(**arguments)
    assert not world.engine.requests
    assert world.admission.active == 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prompt", {"prompt": 7}),
        ("prompt", {"prompt": (1, -1)}),
        ("prompt", {"prompt": (1, True)}),
        ("prompt", {"prompt": (1, 2.5)}),
        ("n", {"n": 0}),
        ("n", {"n": 9}),
        ("n", {"n": "two"}),
        ("stop", {"stops": "END"}),
        ("stop", {"stops": ("",)}),
        ("stop", {"stops": (7,)}),
        ("stop", {"stops": ("x" * 257,)}),
        ("stop", {"stops": ("x",) * 17}),
        ("as_chat", {"prompt": (1, 2), "as_chat": True}),
    ],
)
def test_a_request_is_checked_when_it_is_made(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        CompletionRequest(**{"prompt": "a", "sampling": Sampling(), **arguments})
    assert caught.value.name == name


@pytest.mark.parametrize("arguments", [{"prompt": "a\ud800"}, {"prompt": "a", "stops": ("\udc00",)}])
def test_half_a_surrogate_pair_is_refused(arguments: Any) -> None:
    with pytest.raises(InvalidUnicode):
        CompletionRequest(sampling=Sampling(), **arguments)


def test_a_request_keeps_to_the_servers_longest_answer_and_the_room_there_is(make: Callable[..., World]) -> None:
    world = make(context_tokens=256)
    world.completion("a", sampling=Sampling(max_new_tokens=500))
    assert world.engine.requests[-1].sampling.max_new_tokens == 100
    world.completion(tuple(range(10, 210)), sampling=Sampling(max_new_tokens=90))
    assert world.engine.requests[-1].sampling.max_new_tokens == 56


def test_however_many_alternatives_take_one_place_in_the_line(make: Callable[..., World]) -> None:
    world = make(None, concurrent=2, queue=0)

    async def run() -> None:
        async with aclosing(world.complete("Once", n=8)) as updates:
            async for _ in updates:
                if len(world.engine.requests) == 8:
                    assert world.admission.active == 1
                    world.admission.enter()
                    with pytest.raises(Busy):
                        world.admission.enter()
                    return

    async def main() -> None:
        reading = asyncio.ensure_future(run())
        for _ in range(8):
            await asyncio.to_thread(world.engine.arrived.acquire)
        await reading

    asyncio.run(main())
    assert world.admission.active == 1


def test_a_long_prompt_is_read_by_the_first_alternative_before_the_others_start(make: Callable[..., World]) -> None:
    world = make(None)
    started: list[int] = []

    async def run() -> Completion:
        last = None
        async for update in world.complete(tuple(range(10, 110)), n=4, sampling=Sampling(seed=7)):
            last = update
            requests = world.engine.requests
            if isinstance(update, Completion):
                assert [one.seed for one in update.continuations] == [7, 8, 9, 10]
                started.append(len(requests))
                assert not update.finished or len(requests) == 4
            if len(started) == 3:
                requests[0].stream.put([Token(20, -1.0)])
                requests[0].stream.finish("stop")
            for request in requests[1:]:
                request.stream.finish("stop")
        assert isinstance(last, Completion)
        return last

    made = asyncio.run(run())
    assert started[:3] == [1, 1, 1]
    assert started[-1] == 4
    assert [len(one.ids) for one in made.continuations] == [1, 0, 0, 0]
    assert made.finished


def test_closing_cancels_every_alternative_and_gives_everything_back(make: Callable[..., World]) -> None:
    world = make(None)

    async def leave() -> None:
        async with aclosing(world.complete("Once", n=3)) as updates:
            async for update in updates:
                if isinstance(update, Completion):
                    return

    asyncio.run(leave())
    assert [request.cancelled for request in world.engine.requests] == [True] * 3
    assert world.admission.active == 0
    assert world.registry.status(MODEL).leases == 0


def test_stopping_ends_every_alternative_as_it_stands(make: Callable[..., World]) -> None:
    world, stopper = make(None), Stopper()

    async def run() -> Completion:
        last = None
        async for update in world.complete("Once", n=2, stopper=stopper):
            last = update
            if isinstance(update, Completion) and not update.continuations[0].text:
                for request in world.engine.requests:
                    request.stream.put([Token(number, -1.0) for number in world.tokenizer.encode("To")])
            elif isinstance(update, Completion):
                stopper.stop()
        assert isinstance(last, Completion)
        return last

    made = asyncio.run(run())
    assert [(one.text, one.finish) for one in made.continuations] == [("To", "cancelled")] * 2
    assert made.finished
    assert all(request.cancelled for request in world.engine.requests)


def test_the_failure_of_one_alternative_ends_all_with_its_error(make: Callable[..., World]) -> None:
    world = make(None)

    async def run() -> None:
        async for update in world.complete("Once", n=3):
            if isinstance(update, Completion):
                world.engine.requests[1].stream.fail(EngineCrashed(MODEL))

    with pytest.raises(EngineCrashed):
        asyncio.run(run())
    assert [request.cancelled for request in world.engine.requests] == [True, False, True]
    assert world.registry.status(MODEL).leases == 0

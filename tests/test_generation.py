from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from llama_demo.budgets import Allowance
from llama_demo.errors import Busy, Closing, EmptyMessage, EngineCrashed, MessageTooLong, PromptTooLong, UnknownModel
from llama_demo.generation import Stopper
from llama_demo.loading import LoadedModel
from llama_demo.values import ChatUpdate, LoadProgress, Reply, Sampling, Token, Turn, Waiting
from llama_demo.visitor_errors import TookTooLong, TooManyRequests
from llama_demo.visitors import Role, Visitor
from tests.scripted import ASK, MODEL, ScriptedEngine, World, loaded, worlds


@pytest.fixture
def make(tiny_folder: Path) -> Iterator[Callable[..., World]]:
    yield from worlds(tiny_folder)


def test_the_last_update_is_the_whole_reply_with_its_figures(make: Callable[..., World]) -> None:
    world = make("서울 🦙 is  far.")
    reply = world.reply()
    assert reply.text == "서울 🦙 is  far."
    assert reply.finish == "stop"
    assert reply.new_tokens == len(world.tokenizer.encode(reply.text))
    assert reply.prompt_tokens == len(world.engine.requests[0].ids)
    assert reply.prompt == "<|im_start|>user\nWhere do the boats go?<|im_end|>\n<|im_start|>assistant\n"
    assert reply.speed is not None


def test_a_reply_without_a_seed_tells_the_one_that_was_drawn(make: Callable[..., World]) -> None:
    world = make()
    seeds = {world.reply().seed for _ in range(3)}
    assert None not in seeds
    assert len(seeds) > 1
    assert world.reply(sampling=Sampling(seed=7)).seed == 7
    assert world.engine.requests[-1].sampling.seed == 7


def test_a_reply_grows_in_steps_and_never_shows_half_a_character(make: Callable[..., World]) -> None:
    world = make(None)
    ids = world.tokenizer.encode("a 서울 b")

    async def read() -> list[str]:
        texts: list[str] = []
        async with aclosing(world.chat()) as updates:
            async for update in updates:
                if not world.engine.requests:
                    continue
                stream = world.engine.requests[0].stream
                if isinstance(update, Reply):
                    texts.append(update.text)
                if ids:
                    stream.put([Token(ids.pop(0), -1.0)])
                elif not stream.ended:
                    stream.finish("stop")
        return texts

    texts = asyncio.run(read())
    assert texts[-1] == "a 서울 b"
    assert len(set(texts)) > 2
    assert all("\ufffd" not in text and texts[-1].startswith(text) for text in texts)


def test_the_oldest_exchanges_are_dropped_and_counted_where_the_context_is_full(make: Callable[..., World]) -> None:
    world = make(context_tokens=160)
    turns: tuple[Turn, ...] = (Turn("system", "Be brief."),)
    for number in range(12):
        turns += (Turn("user", f"question {number}"), Turn("assistant", f"answer {number}"))
    reply = world.reply((*turns, Turn("user", "the last one")), sampling=Sampling(max_new_tokens=20))
    assert 0 < reply.dropped_turns < 24
    assert reply.dropped_turns % 2 == 0
    assert "Be brief." in reply.prompt
    assert "question 0" not in reply.prompt
    assert "question 11" in reply.prompt
    assert "the last one" in reply.prompt
    assert reply.prompt_tokens + 20 <= 160


def test_a_message_that_leaves_no_room_is_refused_with_the_numbers(make: Callable[..., World]) -> None:
    world = make(context_tokens=128)
    with pytest.raises(PromptTooLong) as caught:
        world.all((Turn("user", "boat " * 200),))
    assert caught.value.tokens > caught.value.limit
    assert not world.engine.requests


def test_a_long_reply_gets_what_the_prompt_leaves_of_the_context(make: Callable[..., World]) -> None:
    world = make(context_tokens=128)
    world.reply(sampling=Sampling(max_new_tokens=100))
    request = world.engine.requests[0]
    assert len(request.ids) + request.sampling.max_new_tokens <= 128


def test_continuing_goes_on_with_the_cut_reply_and_its_text_begins_with_it(make: Callable[..., World]) -> None:
    world = make(" and far away.")
    reply = world.reply((*ASK, Turn("assistant", "To the harbour")), continue_last=True)
    assert reply.text == "To the harbour and far away."
    assert reply.prompt.endswith("<|im_start|>assistant\nTo the harbour")


def test_a_word_after_the_cut_reply_keeps_its_space_where_the_tokenizer_is_sentencepiece(
    tiny_sentencepiece_folder: Path,
) -> None:
    for make in worlds(tiny_sentencepiece_folder):
        world = make("back with the tide.")
        reply = world.reply((*ASK, Turn("assistant", "The boats come")), continue_last=True)
        assert reply.text == "The boats come back with the tide."
        assert world.reply((*ASK, Turn("assistant", "")), continue_last=True).text == "back with the tide."


@pytest.mark.parametrize(
    ("turns", "continue_last"), [((), False), (ASK, True), ((*ASK, Turn("assistant", "x")), False)]
)
def test_a_conversation_that_ends_on_the_wrong_side_is_refused(
    make: Callable[..., World], turns: tuple[Turn, ...], continue_last: bool
) -> None:
    with pytest.raises(EmptyMessage):
        make().all(turns, continue_last=continue_last)


def test_closing_the_reply_cancels_its_request_and_gives_everything_back(make: Callable[..., World]) -> None:
    world = make(None)

    async def leave() -> None:
        async with aclosing(world.chat()) as updates:
            async for update in updates:
                if isinstance(update, Reply):
                    break

    async def run() -> None:
        reading = asyncio.ensure_future(leave())
        await asyncio.to_thread(world.engine.arrived.acquire)
        world.engine.requests[0].stream.put([Token(5, -1.0)])
        await reading

    asyncio.run(run())
    assert world.engine.requests[0].cancelled
    assert world.admission.active == 0
    assert world.registry.status(MODEL).leases == 0


def test_stopping_from_another_handler_ends_the_reply_as_it_stands(make: Callable[..., World]) -> None:
    world = make(None)
    stopper = Stopper()

    async def run() -> list[ChatUpdate]:
        updates = []
        async for update in world.chat(stopper=stopper):
            updates.append(update)
            if world.engine.requests and not world.engine.requests[0].stream.steps:
                world.engine.requests[0].stream.put([Token(token, -1.0) for token in world.tokenizer.encode("To")])
            if isinstance(update, Reply) and update.text:
                stopper.stop()
        return updates

    last = asyncio.run(run())[-1]
    assert isinstance(last, Reply)
    assert (last.text, last.finish) == ("To", "cancelled")
    assert world.engine.requests[0].cancelled


@pytest.mark.parametrize("by_time", [True, False])
def test_what_the_server_ends_keeps_its_text_and_then_says_why(make: Callable[..., World], by_time: bool) -> None:
    seconds = 0.01 if by_time else 9.0
    world = make(None, allowance=Allowance(4, 4, 99, 9_999, request_seconds=seconds))
    updates: list[ChatUpdate] = []

    async def run() -> None:
        async for update in world.chat():
            updates.append(update)
            if world.engine.requests and not world.engine.requests[0].stream.steps:
                world.engine.requests[0].stream.put([Token(token, -1.0) for token in world.tokenizer.encode("To")])
            if isinstance(update, Reply) and update.text and not by_time:
                world.admission.end_all(Closing())

    with pytest.raises(TookTooLong if by_time else Closing):
        asyncio.run(run())
    last = updates[-1]
    assert isinstance(last, Reply)
    assert (last.text, last.finish) == ("" if by_time else "To", None)
    assert world.engine.requests[0].cancelled
    assert world.admission.active == 0


def test_what_is_read_and_written_counts_against_the_visitors_tokens(make: Callable[..., World]) -> None:
    world = make(allowance=Allowance(4, 4, 99, tokens_per_minute=2))
    mina, jun = (Stopper(Visitor(name, Role.ANONYMOUS)) for name in ("mina", "jun"))
    world.reply(stopper=mina)
    with pytest.raises(TooManyRequests):
        world.reply(stopper=mina)
    world.completion("To the", stopper=jun)
    with pytest.raises(TooManyRequests):
        world.completion("To the", stopper=jun)
    assert world.reply(stopper=Stopper(Visitor("another", Role.ANONYMOUS))).text


def test_stopping_before_the_model_is_loaded_starts_no_request(make: Callable[..., World]) -> None:
    world = make()
    release = world.engine.arrived
    ready = world.load

    def slow() -> LoadedModel:
        release.acquire()
        return ready()

    world.load = slow
    stopper = Stopper()

    async def run() -> list[ChatUpdate]:
        updates = []
        async for update in world.chat(stopper=stopper):
            updates.append(update)
            stopper.stop()
        return updates

    updates = asyncio.run(run())
    release.release()
    assert all(isinstance(update, LoadProgress) for update in updates)
    assert not world.engine.requests
    assert world.admission.active == 0


def test_a_crash_of_the_engine_reaches_the_reader_and_the_next_request_gets_a_fresh_engine(
    make: Callable[..., World], tiny_folder: Path
) -> None:
    world = make(None)
    fresh = ScriptedEngine(world.tokenizer.encode("Back again."))

    async def run() -> None:
        async for update in world.chat():
            if isinstance(update, Reply):
                continue
            if world.engine.requests:
                break

    async def crash() -> None:
        reading = asyncio.ensure_future(run())
        await asyncio.to_thread(world.engine.arrived.acquire)
        world.engine.healthy = False
        world.engine.requests[0].stream.fail(EngineCrashed(MODEL))
        await reading

    with pytest.raises(EngineCrashed):
        asyncio.run(crash())
    world.load = lambda: loaded(fresh, tiny_folder)
    assert world.reply().text == "Back again."


def test_a_crash_while_the_reader_looks_away_is_an_error_and_no_end(make: Callable[..., World]) -> None:
    world = make(None)

    async def run() -> None:
        async for update in world.chat():
            if world.engine.requests and not world.engine.requests[0].stream.steps:
                world.engine.requests[0].stream.put([Token(token, -1.0) for token in world.tokenizer.encode("To")])
            elif isinstance(update, Reply) and update.text:
                world.engine.requests[0].stream.fail(EngineCrashed(MODEL))

    with pytest.raises(EngineCrashed):
        asyncio.run(run())


def test_a_request_that_is_stopped_in_the_line_asks_for_no_model(make: Callable[..., World]) -> None:
    world, stopper = make(concurrent=1), Stopper()

    async def run() -> list[ChatUpdate]:
        before = world.admission.enter()
        updates = world.chat(stopper=stopper)
        seen = [await anext(updates)]
        stopper.stop()
        seen += [update async for update in updates]
        before.leave()
        return seen

    assert asyncio.run(run()) == [Waiting(1, None)]
    assert world.registry.statuses() == {}
    assert world.admission.active == world.admission.waiting == 0


def test_beyond_the_side_by_side_requests_the_place_in_the_line_is_told(make: Callable[..., World]) -> None:
    world = make(concurrent=1, queue=1)
    first = world.admission.enter()

    async def run() -> list[ChatUpdate]:
        updates = []
        async for update in world.chat():
            updates.append(update)
            if isinstance(update, Waiting):
                with pytest.raises(Busy):
                    world.admission.enter()
                first.leave()
        return updates

    updates = asyncio.run(run())
    assert updates[0] == Waiting(1, None)
    assert isinstance(updates[-1], Reply)


def test_what_is_too_long_or_unknown_is_refused_before_anything_starts(make: Callable[..., World]) -> None:
    world = make()
    with pytest.raises(MessageTooLong):
        world.all((Turn("user", "x" * 1_000_000),))
    with pytest.raises(UnknownModel):
        world.all(model="llama-9")
    assert world.admission.active == 0


def test_more_readers_get_fewer_updates_each(make: Callable[..., World]) -> None:
    world = make(concurrent=100)
    alone = world.generation.update_seconds()
    for _ in range(64):
        world.admission.enter()
    crowded = world.generation.update_seconds()
    assert alone == pytest.approx(0.1)
    assert 0.1 < crowded <= 0.8

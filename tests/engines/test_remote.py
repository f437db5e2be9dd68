"""Another server as an engine: against one over real HTTP that behaves, and misbehaves in every way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_demo.catalog_file import Entry, read_catalog_file
from llama_demo.engines.remote import Patience, RemoteServer
from llama_demo.engines.remote_messages import Ask
from llama_demo.engines.remotes import Remotes
from llama_demo.errors import Closing, LlamaDemoError, Unsupported
from llama_demo.remote_errors import (
    RemoteBusy,
    RemoteDown,
    RemoteFailed,
    RemoteGarbled,
    RemoteLacksModel,
    RemoteLocked,
    RemoteLost,
    RemoteRefused,
    RemoteSilent,
)
from llama_demo.values import Sampling, Turn
from tests.remote_server import MODEL, TOKEN, WORDS, Exchange, RemoteStand, chat_logprobs, stand, text_logprobs, well
from tests.waiting import wait_until

ASK = Ask((Turn("user", "Where do the boats go?"),), Sampling(seed=3))
QUICK = Patience(connect=1.5, check=1.5, quiet=0.1, answer=1.2, watch=30.0, again=0.02, rarely=0.05, hold=0.5)
"""Less than in earnest, and still enough for a busy machine; a server that is there is left in peace."""
LONGEST_SECONDS = 30.0
"""Within this time whoever would wait in vain is told: less than the times that are not `QUICK`."""

Servers = Callable[..., RemoteServer]


@pytest.fixture
def far() -> Iterator[RemoteStand]:
    with stand() as made:
        yield made


@pytest.fixture
def server(far: RemoteStand, tmp_path: Path) -> Iterator[Servers]:
    made: list[Remotes] = []

    def serve(patience: Patience = QUICK, environment: dict[str, str] | None = None, **fields: Any) -> RemoteServer:
        """The engine of an entry for the stand, once it has looked at it."""
        values = {"name": "far", "good_for": "Far.", "base_url": far.base_url, "remote_model": MODEL, **fields}
        file = tmp_path / "catalog.toml"
        file.write_text("[[model]]\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items()))
        made.append(Remotes(read_catalog_file(file).entries, environment or {}, patience))
        found = made[-1].find("far")
        assert found is not None
        return found

    yield serve
    for one in made:
        one.close()


def text_of(server: RemoteServer, ask: Ask = ASK) -> str:
    return "".join(piece.text for piece in server.ask(ask))


def failure_of(server: RemoteServer, ask: Ask = ASK) -> LlamaDemoError:
    """What the answer ends with, soon."""
    begun = time.monotonic()
    with pytest.raises(LlamaDemoError) as caught:
        text_of(server, ask)
    assert time.monotonic() - begun < LONGEST_SECONDS
    return caught.value


def test_a_conversation_is_sent_as_messages_and_a_text_as_a_text(far: RemoteStand, server: Servers) -> None:
    engine = server()
    engine.look().result(LONGEST_SECONDS)
    stream = engine.ask(ASK)
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces) == "".join(WORDS)
    assert (pieces[-1].prompt_tokens, pieces[-1].new_tokens, stream.finish_reason) == (7, 4, "stop")
    assert text_of(engine, replace(ASK, source="Once", stops=("END",))) == "".join(WORDS)
    assert text_of(engine, replace(ASK, source=(5, 6))) == "".join(WORDS)
    chat, text, ids = far.heard
    assert chat.path == "/v1/chat/completions"
    assert chat.body["messages"] == [{"role": "user", "content": "Where do the boats go?"}]
    assert (text.path, text.body["prompt"], text.body["stop"]) == ("/v1/completions", "Once", ["END"])
    assert ids.body["prompt"] == [5, 6]


def test_every_sampling_value_reaches_a_server_that_takes_it(far: RemoteStand, server: Servers) -> None:
    engine = server()
    engine.look().result(LONGEST_SECONDS)
    wanted = Sampling(9, 0.5, 0.8, 40, 0.05, 1.2, 0.3, 0.4, seed=11)
    text_of(engine, replace(ASK, sampling=wanted))
    body = far.heard[0].body
    given: dict[str, Any] = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.8, "top_k": 40, "min_p": 0.05, "seed": 11}
    given |= {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.4, "model": MODEL}
    assert given.items() <= body.items()
    text_of(engine, replace(ASK, continue_last=True))
    assert far.heard[1].body["continue_final_message"] is True


def test_what_a_server_does_not_take_is_refused_by_name_and_what_nobody_chose_is_not_sent(
    far: RemoteStand, server: Servers
) -> None:
    far.models = [{"id": MODEL, "object": "model", "owned_by": "somebody"}]
    engine = server()
    engine.look().result(LONGEST_SECONDS)
    assert text_of(engine) == "".join(WORDS)
    assert "top_k" not in far.heard[0].body
    error = failure_of(engine, replace(ASK, sampling=Sampling(min_p=0.1)))
    assert error.data() == {"name": "min_p", "problem": "api.remote_lacks"}
    assert isinstance(failure_of(engine, replace(ASK, continue_last=True)), Unsupported)
    assert len(far.heard) == 1
    assert engine.down is None


@pytest.mark.parametrize("source", [ASK.source, "Once"])
def test_probabilities_come_with_their_alternatives_or_are_said_to_be_missing(
    source: Any, far: RemoteStand, server: Servers
) -> None:
    def told(exchange: Exchange) -> None:
        tokens = [("To ", -0.5), ("sea", -1.5)]
        exchange.piece("To sea", "stop", chat_logprobs(tokens) if exchange.is_chat else text_logprobs(tokens))
        exchange.end()

    far.next(told, well)
    engine = server()
    ask = replace(ASK, source=source, top=2)
    tokens = [token for piece in engine.ask(ask) for token in piece.tokens]
    assert [(one.token, one.logprob, one.raw) for one in tokens] == [
        ("To ", -0.5, b"To "),
        ("sea", -1.5, b"sea"),
    ]
    assert tokens[0].top[0].token == "To "
    assert far.heard[0].body["logprobs"] in (True, 2)
    error = failure_of(engine, ask)
    assert isinstance(error, Unsupported)
    assert "log-probabilities" in error.feature


def test_a_cancelled_request_is_closed_at_the_server_and_ends_at_once(far: RemoteStand, server: Servers) -> None:
    far.next(Exchange.until_gone)
    engine = server()
    stream = engine.ask(ASK)
    pieces = iter(stream)
    next(pieces)
    stream.cancel()
    assert [*pieces][-1:] != [None]
    assert stream.finish_reason == "cancelled"
    assert far.heard[0].gone.wait(LONGEST_SECONDS)


def test_a_request_that_hangs_is_cancelled_as_well(far: RemoteStand, server: Servers) -> None:
    far.next(Exchange.hang)
    engine = server()
    stream = engine.ask(ASK)
    wait_until(lambda: bool(far.heard))
    stream.cancel()
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"


def die(exchange: Exchange) -> None:
    exchange.piece("The ")
    exchange.reset()


def stop_early(exchange: Exchange) -> None:
    exchange.piece("The ")


def fail_within(exchange: Exchange) -> None:
    exchange.piece("The ")
    exchange.event({"error": {"message": "out of memory", "code": 500}})


def babble(exchange: Exchange) -> None:
    exchange.piece("The ")
    exchange.send("data: {not json\n\n")


def wrong_types(exchange: Exchange) -> None:
    exchange.event({"choices": [{"index": 0, "delta": {"content": 5}, "text": 5, "finish_reason": None}]})


def no_choices(exchange: Exchange) -> None:
    exchange.event({"choices": "none"})


def page(exchange: Exchange) -> None:
    exchange.status(200, b"<html>Welcome</html>", Content_Type="text/html")


def hang_within(exchange: Exchange) -> None:
    exchange.piece("The ")
    exchange.hang()


@pytest.mark.parametrize(
    ("behaviour", "expected", "counts_as_down"),
    [
        (die, RemoteLost, True),
        (stop_early, RemoteLost, True),
        (Exchange.reset, RemoteLost, True),
        (fail_within, RemoteFailed, True),
        (babble, RemoteGarbled, True),
        (wrong_types, RemoteGarbled, True),
        (no_choices, RemoteGarbled, True),
        (page, RemoteLost, True),
        (Exchange.hang, RemoteSilent, True),
        (hang_within, RemoteSilent, True),
        (lambda exchange: exchange.status(500), RemoteFailed, True),
        (lambda exchange: exchange.status(307, Location="http://127.0.0.1:9/"), RemoteFailed, True),
        (lambda exchange: exchange.status(401), RemoteLocked, True),
        (lambda exchange: exchange.status(400, {"error": {"message": "too long"}}), RemoteRefused, False),
        (lambda exchange: exchange.status(404, {"detail": "Not Found"}), Unsupported, False),
        (lambda exchange: exchange.status(429, Retry_After="70"), RemoteBusy, False),
    ],
)
def test_each_way_to_go_wrong_has_its_error_in_time(
    behaviour: Any, expected: type[LlamaDemoError], counts_as_down: bool, far: RemoteStand, server: Servers
) -> None:
    engine = server(replace(QUICK, again=30.0, rarely=30.0))
    engine.look().result(LONGEST_SECONDS)
    far.next(behaviour)
    error = failure_of(engine)
    assert type(error) is expected
    assert (engine.down is not None) == counts_as_down
    far.next(well)
    engine.look().result(LONGEST_SECONDS)
    if expected is not RemoteBusy:
        assert text_of(engine) == "".join(WORDS)


def test_what_came_before_the_end_is_kept_and_nothing_of_it_is_asked_again(far: RemoteStand, server: Servers) -> None:
    far.next(die)
    came: list[str] = []
    with pytest.raises(RemoteLost):
        came.extend(piece.text for piece in server().ask(ASK))
    assert came == ["The "]
    assert len(far.heard) == 1


def test_a_stream_that_falls_silent_ends_soon_where_nobody_is_left_at_the_address(
    far: RemoteStand, server: Servers
) -> None:
    """As of a machine that is gone, whose last words never come: the connection stays open and silent."""
    waiting = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.piece("The ")
        waiting.wait(6 * LONGEST_SECONDS)

    far.next(silent)
    engine = server(replace(QUICK, answer=60.0))
    pieces = iter(engine.ask(ASK))
    next(pieces)
    far.stop()
    begun = time.monotonic()
    with pytest.raises(RemoteLost):
        next(pieces)
    assert time.monotonic() - begun < LONGEST_SECONDS
    waiting.set()
    assert isinstance(engine.down, RemoteDown)


def test_a_long_silence_of_a_server_that_is_there_is_waited_for(far: RemoteStand, server: Servers) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.piece("The ")
        wait_until(lambda: len(far.looks) >= looks + 3)
        well(exchange)

    engine = server(replace(QUICK, answer=60.0))
    engine.look().result(LONGEST_SECONDS)
    looks = len(far.looks)
    far.next(slow)
    assert text_of(engine) == "The " + "".join(WORDS)


def test_a_short_retry_after_is_waited_for_once_and_a_long_one_is_told_to_everybody(
    far: RemoteStand, server: Servers
) -> None:
    far.next(lambda exchange: exchange.status(429, Retry_After="0.2"), well)
    engine = server()
    begun = time.monotonic()
    assert text_of(engine) == "".join(WORDS)
    assert time.monotonic() - begun >= 0.2
    far.next(lambda exchange: exchange.status(429, Retry_After="70"))
    error = failure_of(engine)
    assert isinstance(error, RemoteBusy)
    assert 60 < error.seconds <= 70
    asked = len(far.heard)
    again = failure_of(engine)
    assert isinstance(again, RemoteBusy)
    assert 0 < again.seconds < error.seconds
    assert len(far.heard) == asked, "within that time the server is left alone"


def test_a_connection_that_was_kept_and_closed_is_no_failure(far: RemoteStand, server: Servers) -> None:
    far.next(Exchange.reset, well)
    assert text_of(server()) == "".join(WORDS)
    assert len(far.heard) == 2


def test_a_server_that_is_away_is_said_to_be_and_is_used_again_by_itself(far: RemoteStand, server: Servers) -> None:
    engine = server()
    engine.look().result(LONGEST_SECONDS)
    far.stop()
    assert isinstance(failure_of(engine), RemoteDown)
    wait_until(lambda: engine.down is not None)
    with pytest.raises(RemoteDown):
        engine.look().result(LONGEST_SECONDS)
    far.start()
    wait_until(lambda: engine.down is None)
    assert text_of(engine) == "".join(WORDS)


def test_a_server_that_is_away_is_asked_ever_more_seldom_and_many_who_ask_are_one_look(
    far: RemoteStand, server: Servers
) -> None:
    far.is_frozen = True
    engine = server(replace(QUICK, again=0.05, rarely=30.0))
    wait_until(lambda: bool(far.looks))

    def call() -> None:
        with contextlib.suppress(RemoteSilent):
            engine.look().result(LONGEST_SECONDS)

    callers = [threading.Thread(target=call) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LONGEST_SECONDS)
    assert len(far.looks) <= 2
    assert isinstance(engine.down, RemoteSilent)


def test_a_server_without_the_model_is_told_with_what_it_has(far: RemoteStand, server: Servers) -> None:
    engine = server(remote_model="another")
    with pytest.raises(RemoteLacksModel) as caught:
        engine.look().result(LONGEST_SECONDS)
    assert (caught.value.wanted, caught.value.there) == ("another", (MODEL,))


@pytest.mark.parametrize("models", ["nonsense", {"a": 1}, [1, 2], [{"no": "id"}]])
def test_a_list_of_models_that_is_none_is_told(models: object, far: RemoteStand, server: Servers) -> None:
    far.models = models
    with pytest.raises((RemoteGarbled, RemoteLacksModel)):
        server().look().result(LONGEST_SECONDS)


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_server_that_lists_no_models_is_used_all_the_same(status: int, far: RemoteStand, server: Servers) -> None:
    far.models = status
    engine = server(context_tokens=512)
    engine.look().result(LONGEST_SECONDS)
    assert engine.found is not None
    assert engine.found.context_tokens == 512
    assert text_of(engine) == "".join(WORDS)


def test_its_token_goes_to_the_server_and_into_no_error(
    far: RemoteStand, server: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the client would take from the environment for OpenAI itself goes nowhere."""
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET", "BASE_URL"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-openai")
    far.token = TOKEN
    engine = server(environment={"FAR_TOKEN": TOKEN}, token_variable="FAR_TOKEN")
    engine.look().result(LONGEST_SECONDS)
    far.next(lambda exchange: exchange.status(400, {"error": {"message": f"bad {TOKEN} here"}}))
    error = failure_of(engine)
    assert TOKEN not in str(error)
    assert far.heard[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "of-openai" not in str([*far.looks, *(one.headers for one in far.heard)])


@pytest.mark.parametrize("environment", [{}, {"FAR_TOKEN": "old"}])
def test_a_token_that_is_missing_or_wrong_is_told_by_its_variable(
    environment: dict[str, str], far: RemoteStand, server: Servers
) -> None:
    far.token = TOKEN
    engine = server(environment=environment, token_variable="FAR_TOKEN")
    with pytest.raises(RemoteLocked) as caught:
        engine.look().result(LONGEST_SECONDS)
    assert caught.value.variable == "FAR_TOKEN"
    assert "old" not in str(caught.value)


def test_closing_ends_what_is_under_way_and_later_requests_are_told(far: RemoteStand, tmp_path: Path) -> None:
    far.next(Exchange.until_gone)
    entry = Entry("far", "Far", "", "remote", "open", "", "", "", base_url=far.base_url, remote_model=MODEL)
    remotes = Remotes([entry], {}, QUICK)
    engine = remotes.find("far")
    assert engine is not None
    pieces = iter(engine.ask(ASK))
    next(pieces)
    remotes.close()
    with pytest.raises(Closing):
        list(pieces)
    assert far.heard[0].gone.wait(LONGEST_SECONDS)
    with pytest.raises(Closing):
        engine.ask(ASK)

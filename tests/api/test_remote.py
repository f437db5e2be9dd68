"""A model that another server runs, through the app: the API, the page's list, and what is refused of it by name."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from llama_demo.budgets import Allowance
from llama_demo.classify.labels import labels_from
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.errors import ForgedTurn, InvalidParameter, UnknownModel, Unsupported
from llama_demo.generation import Generation, Stopper
from llama_demo.limits import Admission
from llama_demo.remote_errors import RemoteDown, RemoteKeepsTokens
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.ui.models import ModelsPage
from llama_demo.values import CompletionRequest, ModelState, Reply, Sampling, Turn
from llama_demo.visitor_errors import TookTooLong
from llama_demo.visitors import Role, Visitor
from tests.api.conftest import MODEL as LOCAL
from tests.api.conftest import Served, serve
from tests.remote_server import (
    MODEL,
    TOKEN,
    WORDS,
    Exchange,
    RemoteStand,
    chat_logprobs,
    stand,
    text_logprobs,
    well,
)

OWNER = Visitor("owner", Role.OWNER)
ASK: Any = [{"role": "user", "content": "Where do the boats go?"}]
TEXT = "".join(WORDS)
CATALOG = """
[[model]]
name = "far"
title = "Far away"
good_for = "Elsewhere."
base_url = "{base_url}"
remote_model = "{model}"
token_variable = "FAR_TOKEN"
"""


@pytest.fixture(scope="module")
def far_away() -> Iterator[RemoteStand]:
    with stand() as made:
        made.token = TOKEN
        yield made


@pytest.fixture(scope="module")
def app(far_away: RemoteStand, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("remote-app")
    catalog = folder / "catalog.toml"
    catalog.write_text(CATALOG.format(base_url=far_away.base_url, model=MODEL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAR_TOKEN", TOKEN)
        yield from serve(Settings(model=str(tiny_folder), catalog=str(catalog), reproducible=True, cache_dir=folder))


@pytest.fixture
def far(far_away: RemoteStand, app: Served) -> RemoteStand:
    """The stand as every test wants to find it: there, and well."""
    far_away.next(well)
    far_away.heard.clear()
    far_away.count = None
    look(app)
    assert app.runtime.status("far").state is ModelState.READY
    return far_away


@pytest.fixture(scope="module")
def client(app: Served) -> OpenAI:
    return OpenAI(base_url=app.v1, api_key="none needed", max_retries=0, timeout=60)


def look(app: Served) -> None:
    """Finds what the server is now."""
    server = app.runtime._loader.remote("far")
    assert server is not None
    server.look().result(5)


@contextmanager
def away(far: RemoteStand) -> Iterator[None]:
    far.stop()
    try:
        yield
    finally:
        far.start()


def read(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def reply(runtime: Runtime, *turns: Turn, **sampling: Any) -> Reply:
    async def last() -> Any:
        updates = runtime.generation.chat(turns, model="far", sampling=Sampling(**sampling))
        return [update async for update in updates][-1]

    made = asyncio.run(last())
    assert isinstance(made, Reply)
    return made


def test_a_chat_and_a_completion_are_written_by_the_other_server(far: RemoteStand, client: OpenAI) -> None:
    chat = client.chat.completions.create(model="far", messages=ASK, max_tokens=9, seed=5)
    assert chat.choices[0].message.content == TEXT
    assert (chat.model, chat.usage and chat.usage.total_tokens) == ("far", 11)
    text = client.completions.create(model="far", prompt="Once", max_tokens=9, n=2, seed=5, stop=["END"])
    assert [choice.text for choice in text.choices] == [TEXT, TEXT]
    assert far.heard[0].body["messages"] == ASK
    assert sorted(one.body["seed"] for one in far.heard[1:]) == [5, 6]
    pieces = client.chat.completions.create(model="far", messages=ASK, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == TEXT


@pytest.mark.parametrize("marker", ["[INST]", "[/INST]", "<<SYS>>", "<|im_end|>", "<|eot_id|>"])
@pytest.mark.parametrize("role", ["user", "system"])
def test_no_turn_is_forged_on_the_other_server(far: RemoteStand, client: OpenAI, marker: str, role: str) -> None:
    """Its tokenizer may take in a text for the border of a turn what it is written like."""
    forged: Any = [{"role": role, "content": f"a {marker} b"}, *ASK]
    with pytest.raises(openai.BadRequestError, match=re.escape(marker)):
        client.chat.completions.create(model="far", messages=forged)
    assert not far.heard
    answered: Any = [*ASK, {"role": "assistant", "content": f"a {marker} b"}, *ASK]
    assert client.chat.completions.create(model="far", messages=answered).choices[0].message.content == TEXT
    assert client.completions.create(model="far", prompt=f"a {marker} b").choices[0].text == TEXT


def test_no_turn_is_forged_on_the_other_server_from_the_page(far: RemoteStand, app: Served) -> None:
    with pytest.raises(ForgedTurn):
        reply(app.runtime, Turn("user", "a <|im_end|> b"))
    with pytest.raises(ForgedTurn):
        asyncio.run(as_chat(app.runtime, "a [INST] b"))
    assert not far.heard


async def as_chat(runtime: Runtime, text: str) -> None:
    request = CompletionRequest(text, Sampling(), as_chat=True)
    async for _ in runtime.generation.complete(request, model="far"):
        pass


def test_probabilities_come_as_the_other_server_gives_them(far: RemoteStand, client: OpenAI) -> None:
    def told(exchange: Exchange) -> None:
        tokens = [("To ", -0.5), ("sea", -1.5)]
        exchange.piece("To sea", "stop", chat_logprobs(tokens) if exchange.is_chat else text_logprobs(tokens))
        exchange.usage(7, 2)
        exchange.end()

    far.next(told)
    text = client.completions.create(model="far", prompt="Once", max_tokens=9, logprobs=2).choices[0].logprobs
    assert text is not None
    assert (text.tokens, text.token_logprobs, text.text_offset) == (["To ", "sea"], [-0.5, -1.5], [0, 3])
    assert (text.top_logprobs or [])[0] == {"To ": -0.5, "other": -1.5}
    chat = client.chat.completions.create(model="far", messages=ASK, logprobs=True, top_logprobs=1).choices[0].logprobs
    assert chat is not None
    assert [(one.token, one.logprob) for one in chat.content or []] == [("To ", -0.5), ("sea", -1.5)]
    assert [far.heard[0].body["logprobs"], far.heard[1].body["top_logprobs"]] == [2, 1]


def test_one_that_is_away_is_told_shown_and_used_again_and_the_others_go_on(
    far: RemoteStand, app: Served, client: OpenAI
) -> None:
    page = ModelsPage(app.runtime)
    with away(far):
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="far", messages=ASK)
        assert caught.value.status_code == 503
        assert "nobody answers there now" in caught.value.message
        assert client.chat.completions.create(model=LOCAL, messages=ASK, max_tokens=3).choices
        assert {model.id: model.to_dict()["state"] for model in client.models.list()}["far"] == "failed"
        status, health = read(f"{app.address}/health")
        assert (status, json.loads(health)["remote"]) == (200, {"far": "failed"})
        card = card_of(page)
        assert card["failed"]
        assert "nobody answers there now" in card["state_words"]
        assert isinstance(app.runtime.status("far").error, RemoteDown)
    assert client.chat.completions.create(model="far", messages=ASK).choices[0].message.content == TEXT
    assert client.models.retrieve("far").to_dict()["state"] == "ready"
    assert card_of(page)["state"] == "ready"


def card_of(page: ModelsPage) -> Any:
    groups = page.read({"language": "en"}, OWNER)["groups"]
    (card,) = next(group["cards"] for group in groups if group["name"] == "remote")
    assert [action["do"] for action in card["actions"]] in (["use"], [])
    return card


def test_one_that_dies_in_the_middle_ends_the_stream_with_a_clear_error(far: RemoteStand, client: OpenAI) -> None:
    def die(exchange: Exchange) -> None:
        exchange.piece("The ")
        exchange.reset()

    far.next(die, well)
    came: list[str] = []
    stream = client.chat.completions.create(model="far", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="went away in the middle"):
        came.extend(one.choices[0].delta.content or "" for one in stream)
    assert "".join(came) == "The "
    assert len(far.heard) == 1
    assert client.chat.completions.create(model="far", messages=ASK).choices[0].message.content == TEXT


def test_one_that_asks_to_wait_makes_its_client_wait(far: RemoteStand, client: OpenAI) -> None:
    far.next(lambda exchange: exchange.status(429, Retry_After="0.05"), well)
    assert client.completions.create(model="far", prompt="Once").choices[0].text == TEXT
    far.next(lambda exchange: exchange.status(400, {"error": {"message": "no such thing"}}))
    with pytest.raises(openai.BadRequestError, match="no such thing"):
        client.completions.create(model="far", prompt="Once")


def test_a_reader_who_leaves_ends_the_work_of_the_other_server(far: RemoteStand, client: OpenAI) -> None:
    far.next(Exchange.until_gone)
    stream = client.chat.completions.create(model="far", messages=ASK, stream=True)
    next(iter(stream))
    stream.close()
    assert far.heard[0].gone.wait(10)


def test_a_prompt_is_echoed_and_scored_by_the_other_server(far: RemoteStand, client: OpenAI) -> None:
    def echoed(exchange: Exchange) -> None:
        tokens = [("Once ", None), ("upon ", -0.5), ("a time", -1.5)]
        exchange.piece("Once upon a time", "length", text_logprobs(tokens))
        exchange.usage(2, 1)
        exchange.end()

    far.next(echoed)
    asked: Any = {"model": "far", "echo": True, "logprobs": 1}
    both = client.completions.create(**asked, prompt="Once upon ", max_tokens=1).choices[0]
    assert both.text == "Once upon a time"
    assert both.logprobs is not None
    assert both.logprobs.token_logprobs == [None, -0.5, -1.5]
    alone = client.completions.create(**asked, prompt=[5, 6], max_tokens=0)
    assert (alone.choices[0].text, alone.usage and alone.usage.completion_tokens) == ("Once upon ", 0)
    assert alone.choices[0].logprobs is not None
    assert alone.choices[0].logprobs.tokens == ["Once ", "upon "]
    assert [one.body["echo"] for one in far.heard] == [True, True]


def test_what_the_other_server_leaves_out_is_refused_by_name(far: RemoteStand, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="echo"):
        client.completions.create(model="far", prompt="Once", echo=True)
    with pytest.raises(openai.BadRequestError, match="log-probabilities"):
        client.completions.create(model="far", prompt="Once", logprobs=1)
    with pytest.raises(openai.BadRequestError, match="log-probabilities"):
        client.chat.completions.create(model="far", messages=ASK, logprobs=True)


def test_what_needs_tokens_is_refused_by_name(far: RemoteStand, app: Served, client: OpenAI) -> None:
    async def score() -> None:
        async for _ in app.runtime.generation.score("A text.", model="far", top_k=1):
            pass

    for work in (score, lambda: classify(app.runtime)):
        with pytest.raises(RemoteKeepsTokens):
            asyncio.run(work())
    for refused in (app.runtime.management.download, app.runtime.management.check_access):
        with pytest.raises(Unsupported):
            refused("far")
    with pytest.raises(InvalidParameter):
        app.runtime.management.convert("far")


async def classify(runtime: Runtime) -> None:
    asked = ZeroShot(labels_from(["good", "bad"]))
    async for _ in runtime.classification.classify(["A text."], asked, model="far"):
        pass


def test_nobody_but_the_owners_file_names_a_server(app: Served, client: OpenAI) -> None:
    address = "http://169.254.169.254/v1"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=address, messages=ASK)
    with pytest.raises(InvalidParameter):
        app.runtime.management.add(address)
    with pytest.raises(UnknownModel):
        app.runtime.management.load(address)
    for field in ("base_url", "remote_model", "token_variable"):
        with pytest.raises(openai.BadRequestError, match=field):
            client.chat.completions.create(model="far", messages=ASK, extra_body={field: address})


def test_the_token_and_the_address_are_in_no_answer(
    far: RemoteStand, app: Served, client: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    said = [read(f"{app.address}{path}")[1] for path in ("/", "/config", "/health", "/metrics", "/v1/models")]
    said.append(json.dumps(ModelsPage(app.runtime).read({"language": "en"}, OWNER)))
    said.append(str(app.runtime.models(everything=True)))
    for status in (400, 401, 500):
        far.next(partial(Exchange.status, code=status, body={"error": {"message": f"bad {TOKEN}"}}))
        with pytest.raises(openai.APIStatusError) as caught:
            client.completions.create(model="far", prompt="Once")
        said.append(str(caught.value.body))
    said.append(caplog.text)
    assert not [text for text in said if TOKEN in text or far.base_url in text]


def test_a_long_conversation_loses_its_oldest_turns_where_the_server_counts(far: RemoteStand, app: Served) -> None:
    """Its context is 256 tokens, and each word here counts as one."""
    far.count = lambda body: sum(len(turn["content"].split()) for turn in body.get("messages", [{"content": "a"}]))
    look(app)
    long = "word " * 80
    turns = (Turn("user", long), Turn("assistant", long), Turn("user", long), Turn("assistant", long))
    made = reply(app.runtime, *turns, Turn("user", "And now?"), max_new_tokens=100)
    assert (made.dropped_turns, made.text, made.context_tokens) == (2, TEXT, 256)
    sent = far.heard[-1].body
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert json.loads(made.prompt) == sent["messages"]
    assert sent["max_tokens"] == 94


def test_a_completion_says_what_it_knows(far: RemoteStand, app: Served) -> None:
    async def last() -> Any:
        request = CompletionRequest("Once ", Sampling(max_new_tokens=9, seed=4), n=2)
        return [update async for update in app.runtime.generation.complete(request, model="far")][-1]

    made = asyncio.run(last())
    assert (made.prompt, made.prompt_tokens, made.new_tokens, made.finished) == ("Once ", 7, 8, True)
    assert [(one.text, one.ids, one.seed) for one in made.continuations] == [(TEXT, (), 4), (TEXT, (), 5)]
    assert made.speed is not None


@pytest.mark.parametrize("by_time", [False, True])
def test_a_visitors_stop_and_a_visitors_time_end_it_on_both_servers(
    by_time: bool, far: RemoteStand, app: Served
) -> None:
    far.next(Exchange.until_gone)
    allowance = Allowance(4, 4, 99, 9_999, request_seconds=2) if by_time else None
    admission = Admission(4, 4, allowance=allowance)
    runtime = app.runtime
    generation = Generation(runtime.registry, runtime.limits, admission, remote=runtime._loader.remote)
    stopper, replies = Stopper(Visitor("mina", Role.ANONYMOUS)), []

    async def run() -> None:
        chat = generation.chat([Turn("user", "Go on")], model="far", sampling=Sampling(), stopper=stopper)
        async for update in chat:
            replies.append(update)
            if isinstance(update, Reply) and update.text and not by_time:
                stopper.stop()

    with pytest.raises(TookTooLong) if by_time else nullcontext():
        asyncio.run(run())
    last = replies[-1]
    assert isinstance(last, Reply)
    assert last.text.startswith("on ")
    assert last.finish == (None if by_time else "cancelled")
    assert far.heard[0].gone.wait(10)
    assert admission.active == 0


def test_many_at_once_are_all_answered(far: RemoteStand, app: Served) -> None:
    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(last_of(number) for number in range(48)))

    async def last_of(number: int) -> Reply:
        updates = app.runtime.generation.chat([Turn("user", str(number))], model="far", sampling=Sampling())
        made = [update async for update in updates][-1]
        assert isinstance(made, Reply)
        return made

    assert {made.text for made in asyncio.run(all_of_them())} == {TEXT}
    asked = {one.body["messages"][0]["content"] for one in far.heard}
    assert asked == {str(number) for number in range(48)}
    assert app.runtime.status("far").leases == 0

"""The API as OpenAI's own client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.conftest import MODEL, Served
from tests.waiting import wait_until

ASK: Any = [{"role": "user", "content": "What is the capital of South Korea?"}]


def test_the_model_is_listed_and_found_by_its_name(client: Any) -> None:
    assert next(iter(client.models.list())).id == MODEL
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_chat_answers_whole(client: Any) -> None:
    got = client.chat.completions.create(model=MODEL, messages=ASK, max_completion_tokens=6, temperature=0)
    assert got.object == "chat.completion"
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].message.content
    assert got.choices[0].finish_reason in ("stop", "length")
    assert got.usage is not None
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert got.usage.completion_tokens <= 6


def test_a_streamed_chat_adds_up_to_the_whole_one(client: Any) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "max_tokens": 30, "temperature": 1.0, "seed": 5}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk.id, chunk.system_fingerprint) for chunk in chunks} == {(chunks[0].id, whole.system_fingerprint)}
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert reasons[:-1] == [None] * (len(reasons) - 1)


def test_several_answers_have_seeds_of_their_own_and_the_first_is_the_one_alone(client: Any) -> None:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12, "seed": 40}
    together = client.chat.completions.create(**asked, n=3).choices
    assert [choice.index for choice in together] == [0, 1, 2]
    alone = [client.chat.completions.create(**{**asked, "seed": 40 + index}).choices[0] for index in range(3)]
    assert [choice.message.content for choice in together] == [choice.message.content for choice in alone]
    assert len({choice.message.content for choice in together}) == 3


def test_streamed_answers_side_by_side_are_told_apart_by_their_index(client: Any) -> None:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12, "seed": 40, "n": 2}
    texts = ["", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    whole = client.chat.completions.create(**asked).choices
    assert texts == [choice.message.content for choice in whole]


def test_stop_texts_end_an_answer_which_comes_without_them(client: Any) -> None:
    asked = {"model": MODEL, "prompt": "The harbour", "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    cut = client.completions.create(**asked, stop=[stop, "never written"]).choices[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"
    assert client.completions.create(**asked, stop=stop).choices[0].text == cut.text
    streamed = list(client.completions.create(**asked, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.text


def test_the_log_probabilities_of_a_chat_are_those_of_its_tokens(client: Any) -> None:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 10, "seed": 3, "logprobs": True}
    plain = client.chat.completions.create(**asked)
    told = plain.choices[0].logprobs.content
    assert len(told) == plain.usage.completion_tokens
    assert (
        b"".join(bytes(token.bytes or []) for token in told)
        .decode(errors="replace")
        .startswith(plain.choices[0].message.content.rstrip("\N{REPLACEMENT CHARACTER}"))
    )
    assert all(token.top_logprobs == [] for token in told)
    scored = client.chat.completions.create(**asked, top_logprobs=3).choices[0].logprobs.content
    assert [token.token for token in scored] == [token.token for token in told]
    for token, again in zip(told, scored, strict=True):
        assert again.logprob == pytest.approx(token.logprob, abs=1e-3)
        best = [other.logprob for other in again.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert again.logprob <= best[0] + 1e-4
    streamed = client.chat.completions.create(**asked, stream=True)
    pieces = [choice.logprobs.content for chunk in streamed for choice in chunk.choices if choice.logprobs]
    assert [token.logprob for piece in pieces for token in piece] == [token.logprob for token in told]


def test_greedy_takes_the_likeliest_token_each_time(client: Any) -> None:
    got = client.completions.create(model=MODEL, prompt="The dog", max_tokens=8, temperature=0, logprobs=2)
    told = got.choices[0].logprobs
    assert len(told.tokens) >= got.usage.completion_tokens > 0
    for token, top in zip(told.tokens, told.top_logprobs, strict=True):
        assert max(top, key=top.get) == token
    assert told.text_offset[0] == 0
    assert told.text_offset == sorted(told.text_offset)
    assert told.text_offset[-1] <= len(got.choices[0].text)


@pytest.mark.parametrize("new_tokens", [0, 1])
def test_an_echoed_prompt_is_scored_as_the_model_reads_it(client: Any, served: Served, new_tokens: int) -> None:
    with served.runtime.registry.lease(MODEL) as loaded:
        ids = loaded.tokenizer.encode("A dog sleeps on the warm stones")
        scores = loaded.engine.score(ids, 1)
    asked = {"model": MODEL, "max_tokens": new_tokens, "temperature": 0, "logprobs": 1, "echo": True}
    told = client.completions.create(prompt=ids, **asked).choices[0]
    assert told.text.startswith("A dog sleeps on the warm stones")
    assert len(told.logprobs.tokens) == len(ids) + new_tokens
    assert told.logprobs.token_logprobs[0] is None
    assert told.logprobs.top_logprobs[0] is None
    expected = scores.logprobs[1:].tolist()
    assert told.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    assert told.logprobs.text_offset[:2] == [0, len(told.logprobs.tokens[0])]


@pytest.mark.parametrize("app", ["served", "served_by_openvino"])
def test_an_end_token_is_scored_too_so_that_echo_with_one_token_always_has_one_more(
    app: str, request: pytest.FixtureRequest
) -> None:
    """Programs that score a prompt ask for one token and take it off the end."""
    served: Served = request.getfixturevalue(app)
    with served.runtime.registry.lease(served.runtime.reads_with(MODEL)) as loaded:
        tokenizer, engine = loaded.tokenizer, loaded.engine
        candidates = ([first, second] for first in range(3, 250) for second in range(3, 40))
        scores, ids = next(
            (scores, ids)
            for ids in candidates
            if (scores := engine.score([*ids, 0], 1)).top_ids[-1][0] in tokenizer.eos_ids
        )
    asked: Any = {"model": MODEL, "prompt": ids, "temperature": 0, "logprobs": 1, "echo": True}
    got = OpenAI(base_url=served.v1, api_key="-", timeout=60).completions.create(**asked, max_tokens=1)
    assert got.usage is not None
    assert got.usage.completion_tokens == 0
    assert got.choices[0].finish_reason == "stop"
    told = got.choices[0].logprobs
    assert told is not None
    assert len(told.tokens) == len(ids) + 1
    assert told.tokens[-1] == "<|im_end|>"
    assert told.token_logprobs[-1] == pytest.approx(float(scores.top_logprobs[-1][0]), abs=1e-3)


def test_prompts_come_as_texts_or_ids_one_or_several_and_are_answered_in_their_order(
    client: Any, served: Served
) -> None:
    texts = ["The boats come back", "A dog sleeps", "Nobody hurries"]
    with served.runtime.registry.lease(MODEL) as loaded:
        ids = [loaded.tokenizer.encode_text(text) for text in texts]
    asked = {"model": MODEL, "max_tokens": 5, "temperature": 0}
    alone = [client.completions.create(prompt=text, **asked).choices[0].text for text in texts]
    for prompt in (texts, ids):
        got = client.completions.create(prompt=prompt, **asked)
        assert [choice.text for choice in got.choices] == alone
        assert [choice.index for choice in got.choices] == [0, 1, 2]
        assert got.usage.prompt_tokens == sum(map(len, ids))
    assert client.completions.create(prompt=ids[1], **asked).choices[0].text == alone[1]
    streamed = ["", "", ""]
    for chunk in client.completions.create(prompt=texts, **asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == alone
    echoed = client.completions.create(prompt=texts, **asked, n=2, echo=True)
    assert [choice.text for choice in echoed.choices] == [
        text + new for text, new in zip(texts, alone, strict=True) for _ in range(2)
    ]


def test_penalties_make_a_repeated_token_less_likely(client: Any) -> None:
    asked = {"model": MODEL, "prompt": "1, 2, 3, 4,", "max_tokens": 60, "temperature": 0, "logprobs": 0}

    def variety(**options: Any) -> float:
        tokens = client.completions.create(**asked, **options).choices[0].logprobs.tokens
        return len(set(tokens)) / len(tokens)

    plain = variety()
    assert variety(presence_penalty=2) > plain
    assert variety(frequency_penalty=2) > plain
    assert variety(extra_body={"repetition_penalty": 2.0}) > plain
    assert variety(frequency_penalty=-2) < plain


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("stream", [False, True])
def test_where_openvino_runs_the_model_two_penalties_are_refused_by_name_and_the_third_holds(
    served_by_openvino: Served, penalty: str, stream: bool
) -> None:
    client: Any = OpenAI(base_url=served_by_openvino.v1, api_key="-", max_retries=0, timeout=60)
    asked = {"model": MODEL, "max_tokens": 40, "temperature": 0}
    for create, prompt in (
        (client.completions.create, {"prompt": "1, 2, 3, 4,"}),
        (client.chat.completions.create, {"messages": ASK}),
    ):
        with pytest.raises(openai.BadRequestError, match=f"^.*{penalty} cannot be honoured: OpenVINO") as caught:
            create(**asked, **prompt, **{penalty: 0.5}, stream=stream)
        assert (caught.value.param, caught.value.code) == (penalty, "unsupported_parameter")
        create(**asked, **prompt, **{penalty: 0})
    plain, varied = (
        client.completions.create(
            prompt="1, 2, 3, 4,", **asked, logprobs=0, extra_body={"repetition_penalty": by}
        ).choices[0]
        for by in (1.0, 2.0)
    )
    assert len(set(varied.logprobs.tokens)) > len(set(plain.logprobs.tokens))


def test_extensions_of_other_servers_are_taken(client: Any) -> None:
    asked = {"model": MODEL, "prompt": "The harbour", "max_tokens": 12}
    greedy = client.completions.create(**asked, temperature=0).choices[0].text
    for cut in ({"top_k": 1}, {"min_p": 1.0}):
        assert client.completions.create(**asked, temperature=2, extra_body=cut).choices[0].text == greedy
    assert client.completions.create(**asked, temperature=2, top_p=0.01).choices[0].text == greedy


def test_what_came_back_may_be_sent_again_with_roles_of_every_kind(client: Any) -> None:
    asked = {"model": MODEL, "max_tokens": 5, "temperature": 0}
    first = client.chat.completions.create(messages=ASK, **asked).choices[0].message
    messages = [{"role": "developer", "content": "Be brief."}, *ASK, first]
    parts = [{"type": "text", "text": "And of "}, {"type": "text", "text": "Japan?"}]
    got = client.chat.completions.create(messages=[*messages, {"role": "user", "content": parts}], **asked)
    texts = [*messages, {"role": "user", "content": "And of Japan?"}]
    assert (
        got.choices[0].message.content
        == client.chat.completions.create(messages=[{"role": "system", "content": "Be brief."}, *texts[1:]], **asked)
        .choices[0]
        .message.content
    )


def test_many_programs_are_answered_at_once(served: Served) -> None:
    async def ask_all() -> list[Any]:
        client: Any
        async with openai.AsyncOpenAI(base_url=served.v1, api_key="-", max_retries=0, timeout=60) as client:
            asked: Any = {"model": MODEL, "max_tokens": 12, "temperature": 0}
            whole = [client.chat.completions.create(messages=ASK, **asked) for _ in range(8)]

            async def streamed() -> str:
                chunks = await client.chat.completions.create(messages=ASK, **asked, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            return await asyncio.gather(*whole, *(streamed() for _ in range(8)))

    answers = asyncio.run(ask_all())
    texts = [answer.choices[0].message.content for answer in answers[:8]] + answers[8:]
    assert len(set(texts)) == 1


def test_a_program_that_leaves_ends_its_work(client: Any, served: Served) -> None:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 400, "temperature": 5, "seed": 1}
    with served.runtime.registry.lease(MODEL) as loaded:
        tokens = loaded.engine.context_tokens
    stream = client.chat.completions.create(**asked, stream=True)
    next(iter(stream))
    stream.close()
    wait_until_idle(served)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).completions.create(
            model=MODEL, prompt=["endless"] * 64, n=8, max_tokens=tokens - 50, temperature=5, seed=1
        )
    wait_until_idle(served)


def wait_until_idle(served: Served) -> None:
    wait_until(lambda: not served.active() and not served.runtime.waiting())

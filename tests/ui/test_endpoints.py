"""`/generate` and `/score` as a program calls them: a real page, served, over a tiny model of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from llama_demo import ui
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.tokenizer import Tokenizer

PROMPT = "The harbour lies below the"
GREEDY = {"temperature": 0, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def client(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    cache = tmp_path_factory.mktemp("cache")
    settings = read_settings({"model": str(tiny_folder)}, {"LLAMA_DEMO_CACHE_DIR": str(cache)})
    with Runtime(settings) as runtime:
        page = ui.build(runtime)
        page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **ui.launch_options(runtime))
        yield Client(page.local_url, verbose=False)
        page.close(verbose=False)


def test_generate_streams_the_continuation_without_the_prompt_with_every_argument_by_name(client: Client) -> None:
    arguments: dict[str, Any] = {
        "prompt": PROMPT,
        "model": "tiny-llama",
        "max_new_tokens": 100,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "seed": 5,
        "stop": ["never to be seen"],
        "n": 1,
    }
    job = client.submit(**arguments, api_name="/generate")
    whole = job.result(timeout=60)
    texts = [text for text in job.outputs() if text]
    assert len(set(texts)) > 1
    assert all(whole.startswith(text) for text in texts)
    assert not whole.startswith(PROMPT)
    assert client.predict(**arguments, api_name="/generate") == whole
    assert client.predict(**{**arguments, "seed": 6}, api_name="/generate") != whole


def test_generate_gives_a_list_where_n_is_above_1_each_with_the_seed_of_its_own(client: Client) -> None:
    options = {"max_new_tokens": 20, "temperature": 1.0}
    texts = client.predict(PROMPT, n=3, seed=40, **options, api_name="/generate")
    alone = [client.predict(PROMPT, seed=40 + index, **options, api_name="/generate") for index in range(3)]
    assert texts == alone
    assert len(set(texts)) == 3


def test_generate_ends_before_a_stop_string(client: Client) -> None:
    whole = client.predict(PROMPT, **GREEDY, api_name="/generate")
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    shown = client.predict(PROMPT, stop=["not there", stop], **GREEDY, api_name="/generate")
    assert shown == whole[: whole.index(stop)]


def test_generate_from_an_empty_prompt_writes_something(client: Client) -> None:
    assert client.predict("", **GREEDY, api_name="/generate")


def test_score_gives_every_token_with_its_alternatives(client: Client, tiny_folder: Path) -> None:
    text = "The  서울\nharbour"
    tokens = client.predict(text=text, model="tiny-llama", top_k=3, api_name="/score")
    tokenizer = Tokenizer.load(tiny_folder)
    assert [token["id"] for token in tokens] == tokenizer.encode(text)
    assert tokens[0] == {
        "token": tokenizer.token_name(tokens[0]["id"]),
        "id": tokens[0]["id"],
        "logprob": None,
        "top": [],
    }
    assert all(token.keys() == {"token", "id", "logprob", "top"} for token in tokens)
    assert all(token["logprob"] < 0 for token in tokens[1:])
    for token in tokens[1:]:
        best = [other["logprob"] for other in token["top"]]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert all(other.keys() == {"token", "id", "logprob"} for other in token["top"])
    assert "<0xEC>" in [token["token"] for token in tokens]
    assert client.predict(text, top_k=3, api_name="/score") == tokens


def test_only_the_text_is_needed(client: Client) -> None:
    job = client.submit("The", api_name="/generate")
    assert isinstance(next(iter(job)), str)
    job.cancel()  # or it writes for as long as a request may
    assert len(client.predict("The harbour lies", api_name="/score")[1]["top"]) == 5


@pytest.mark.parametrize(
    ("endpoint", "arguments", "words"),
    [
        ("/generate", {"prompt": 7}, "prompt is 7, but it must be a text"),
        ("/generate", {"prompt": "a", "n": 9}, "n is 9, but it must be a whole number from 1 to 8"),
        ("/generate", {"prompt": "a", "n": None}, "n is None"),
        ("/generate", {"prompt": "a", "stop": "x"}, "stop is x, but it must be a list of at most 16 texts"),
        ("/generate", {"prompt": "a", "stop": [""]}, "texts of 1 to 256 characters"),
        ("/generate", {"prompt": "a", "min_p": 2}, "min_p is 2"),
        ("/generate", {"prompt": "harbour " * 600}, "the model has room for 511"),
        ("/generate", {"prompt": "x" * 200_000}, "200000 characters"),
        ("/generate", {"prompt": "a", "model": "tiny"}, "Did you mean"),
        ("/generate", {"prompt": "a", "model": ["tiny"]}, "model is"),
        ("/score", {"text": None}, "text is None"),
        ("/score", {"text": "a", "top_k": -1}, "top_k is -1, but it must be a whole number from 0 to 100"),
        ("/score", {"text": "a", "top_k": True}, "top_k is True"),
        ("/score", {"text": "harbour " * 600}, "the model has room for 512"),
    ],
)
def test_bad_input_is_one_sentence(client: Client, endpoint: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError, match=words) as caught:
        client.predict(**arguments, api_name=endpoint)
    assert "Traceback" not in str(caught.value)

"""The endpoints of classification behind Gradio's own server, on the tests' own model, as a program calls them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from safetensors.numpy import save_file

from llama_demo.classify import head as heads
from llama_demo.runtime import Runtime
from llama_demo.ui.classify_endpoints import add_classify_endpoints

WORDS = {"sea": ["harbour", "boats", "tide", "net"], "land": ["bread", "baker", "street", "school"]}
EXAMPLES = [
    {"text": f"{one} and {other}", "label": label}
    for label, words in WORDS.items()
    for one, other in itertools.permutations(words, 2)
]


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[Client]:
    with gr.Blocks(analytics_enabled=False) as page:
        add_classify_endpoints(runtime)
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield Client(page.local_url, verbose=False)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def report(client: Client) -> dict[str, Any]:
    made: dict[str, Any] = client.predict(examples=EXAMPLES, name="mine", api_name="/train_classifier")
    return made


def test_labels_alone_are_enough(client: Client) -> None:
    found = client.predict(["the boats", "the bread"], labels=["sea", "land"], api_name="/classify")
    assert [set(each["scores"]) for each in found] == [{"sea", "land"}] * 2
    for each in found:
        assert sum(each["scores"].values()) == pytest.approx(1.0)
        assert each["scores"][each["label"]] == max(each["scores"].values())


def test_the_corrections_and_the_instruction_are_honoured(client: Client) -> None:
    def scores(**options: Any) -> Any:
        labels = ["sea", {"name": "the old town", "description": "streets"}]
        return client.predict(["the boats"], labels=labels, api_name="/classify", **options)[0]["scores"]["sea"]

    plain = scores()
    for options in ({"correct_prior": False}, {"normalise_length": False}, {"instruction": "Where is it?"}):
        assert abs(scores(**options) - plain) > 1e-6


def test_a_program_trains_a_head_uses_it_and_takes_it_away(client: Client, report: dict[str, Any]) -> None:
    assert report["accuracy"] > 0.8
    assert set(report) >= {"macro_f1", "confusion", "calibration_error", "most_confidently_wrong", "prompt"}
    assert np.array(report["confusion"]).sum() == len(EXAMPLES)
    head = heads.load(Path(report["file"]))
    assert head.labels == ("land", "sea")
    found = client.predict(["harbour and boats", "baker and bread"], "mine", api_name="/classify")
    assert [each["label"] for each in found] == ["sea", "land"]


def test_a_cut_text_and_an_abstention_are_said(client: Client, report: dict[str, Any]) -> None:
    found = client.predict(["boats " * 900, "boats"], "mine", threshold=1.0, api_name="/classify")
    assert found[0]["cut_characters"] > 0
    assert "cut_characters" not in found[1]
    assert found[1]["label"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classifier": "mime"}, "mine"),
        ({"labels": ["one"]}, "2 to 200"),
        ({"labels": ["a", "a"]}, "twice"),
        ({}, "labels"),
        ({"classifier": "mine", "labels": ["a", "b"]}, "left out"),
        ({"labels": ["a", "b"], "model": "gpt"}, "gpt"),
        ({"labels": ["a", "b"], "instruction": "{text}{text}"}, "once"),
        ({"classifier": "mine", "texts": [""]}, "empty"),
        ({"classifier": "mine", "threshold": 2}, "from 0 to 1"),
        ({"classifier": 7}, "a text"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    client: Client, report: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(**{"texts": ["boats"], **arguments}, api_name="/classify")


def test_training_refuses_what_makes_no_sense(client: Client, report: dict[str, Any]) -> None:
    one_class = [{"text": f"text {number}", "label": "a"} for number in range(20)]
    for arguments, words in (
        ({"examples": EXAMPLES, "name": "mine"}, "already"),
        ({"examples": EXAMPLES[:5], "name": "few"}, "10 to 50000"),
        ({"examples": one_class, "name": "one"}, "two labels"),
        ({"examples": EXAMPLES, "name": ""}, "name"),
        ({"examples": EXAMPLES, "name": "x", "prompt": "none"}, "text}"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(**arguments, api_name="/train_classifier")


def test_a_file_without_a_trained_head_yields_no_number(client: Client, runtime: Runtime) -> None:
    path = runtime.classification.heads.path("empty")
    path.parent.mkdir(exist_ok=True)
    save_file({"model.norm.weight": np.ones(4, np.float32)}, path)
    with pytest.raises(AppError, match="random"):
        client.predict(["boats"], "empty", api_name="/classify")

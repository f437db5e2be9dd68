"""Checkpoints of `LlamaForSequenceClassification`, made by transformers itself and given as the model to start with."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llama_demo.classify.checkpoint import is_classifier, read_checkpoint
from llama_demo.classify.labels import labels_from
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.cli import USAGE_STATUS, main
from llama_demo.errors import BadCheckpoint, BadHead, UnknownClassifier, Unsupported, UntrainedHead
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.ui.classify_endpoints import ClassifyEndpoints
from llama_demo.values import Sampling, Turn

TEXTS = ["the boats come back", "bread", "1, 2, 3 and a dog on the warm stones"]


def make(folder: Path, tiny_folder: Path, problem_type: str | None, labels: int = 3) -> Path:
    """As a user's own training would have saved it."""
    import torch
    from transformers import LlamaForSequenceClassification

    model = LlamaForSequenceClassification.from_pretrained(str(tiny_folder), num_labels=labels, dtype=torch.float32)
    model.config.problem_type = problem_type
    model.config.pad_token_id = 2
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "own-classifier", tiny_folder, "single_label_classification")


def last(updates: AsyncGenerator[Any, None]) -> Any:
    async def read() -> Any:
        async with aclosing(updates):
            return [update async for update in updates][-1]

    return asyncio.run(read())


def runtime_on(folder: Path, cache: Path) -> Runtime:
    given = {"model": str(folder), "cache_dir": str(cache), "reproducible": "true", "memory_gb": "2"}
    return Runtime(read_settings(given, {}))


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_each_kind_has_the_scores_of_plain_transformers(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make(tmp_path / "own-classifier", tiny_folder, kind)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, return_tensors="pt", padding=True)).logits
    wanted = {"single": logits.softmax(-1), "multi_": logits.sigmoid(), "regres": logits}[kind[:6]].numpy()
    with runtime_on(folder, tmp_path / "cache") as runtime:
        verdicts = last(runtime.classification.classify(TEXTS, "own-classifier")).verdicts
    made = np.array([list(verdict.scores.values()) for verdict in verdicts])
    assert np.abs(made - wanted).max() <= 1e-4
    if kind == "multi_label_classification":
        assert [len(verdict.labels) for verdict in verdicts] == (wanted >= 0.5).sum(axis=1).tolist()
    assert [verdict.label is None for verdict in verdicts] == [kind[:6] != "single"] * 3


def test_a_classifier_neither_writes_nor_scores(checkpoint: Path, tmp_path: Path) -> None:
    with runtime_on(checkpoint, tmp_path) as runtime:
        with pytest.raises(Unsupported):
            last(runtime.generation.chat([Turn("user", "hi")], model="own-classifier", sampling=Sampling()))
        asked = ZeroShot(labels_from(["a", "b"]))
        with pytest.raises(Unsupported):
            last(runtime.classification.classify(["x"], asked, model="own-classifier"))


def test_without_its_score_weight_it_never_yields_a_number(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UntrainedHead, match=r"not_in_files, weight='score\.weight'"):
        read_checkpoint(folder, "headless")
    with runtime_on(folder, tmp_path / "cache") as runtime:
        for updates in (
            runtime.classification.classify(TEXTS, "headless"),
            runtime.classification.explain(TEXTS[0], "headless"),
            runtime.classification.sharing.export("headless", tmp_path / "exported", runtime.messages()),
        ):
            with pytest.raises(UntrainedHead):
                last(updates)
        with pytest.raises(gr.Error, match="random"):
            asyncio.run(ClassifyEndpoints(runtime).classify(TEXTS, "headless"))
    assert not (tmp_path / "exported").exists()
    arguments = ["classify", "some text", "--model", str(folder), "--classifier", "headless"]
    assert main(arguments, {"LLAMA_DEMO_CACHE_DIR": str(tmp_path / "cache")}) == USAGE_STATUS
    out, err = capsys.readouterr()
    assert not out
    assert "random" in err


def test_a_language_model_is_no_classifier(tiny_folder: Path, tmp_path: Path) -> None:
    assert not is_classifier(tiny_folder)
    assert not is_classifier(None)
    with runtime_on(tiny_folder, tmp_path) as runtime, pytest.raises(UnknownClassifier):
        last(runtime.classification.classify(TEXTS, tiny_folder.name))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("{cut", BadHead),
        ("[1]", BadHead),
        ('{"architectures": null}', UnknownClassifier),
        ('{"architectures": 1}', UnknownClassifier),
    ],
)
def test_a_folder_that_cannot_be_read_costs_nobody_the_list_of_classifiers(
    config: str, named: type[Exception], checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(config, encoding="utf-8")
    table = '[[model]]\nname = "{}"\nformat = "hf"\npath = "{}"\ngood_for = "tests"\n'
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(table.format("good", checkpoint) + table.format("bad", tmp_path / "bad"), encoding="utf-8")
    given = {"model": "good", "catalog": str(catalog), "cache_dir": str(tmp_path / "cache"), "memory_gb": "2"}
    with Runtime(read_settings(given, {})) as runtime:
        assert runtime.classification.names(["bad", "good"]) == ["good"]
        with pytest.raises(named):
            runtime.classification.find("bad")


def test_pickled_weights_contradictions_and_no_numbers_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    def changed(name: str, config: dict[str, Any], weight: Any = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(checkpoint, folder)
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**values, **config}), encoding="utf-8")
        if weight is not None:
            tensors = load_file(folder / "model.safetensors")
            save_file({**tensors, "score.weight": weight}, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    with pytest.raises(BadHead, match="unnamed"):
        read_checkpoint(changed("labels", {"id2label": {"0": "a", "1": "b"}}), "x")
    with pytest.raises(BadHead, match="kind='magic'"):
        read_checkpoint(changed("kind", {"problem_type": "magic"}), "x")
    nothing = np.full((3, 128), np.nan, np.float32)
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.no_number"):
        read_checkpoint(changed("nan", {}, nothing), "x")
    pickled = changed("pickled", {})
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BadHead, match="pickle"):
        read_checkpoint(pickled, "x")

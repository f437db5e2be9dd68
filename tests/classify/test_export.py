"""An exported head in plain transformers gives what the app gives, on the wrapped text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_demo.checkpoints.gguf import write_gguf, write_tokenizer
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.llama import read_folder
from llama_demo.classify.export import export
from llama_demo.classify.features import Features
from llama_demo.classify.head import Backbone, Head
from llama_demo.classify.wrapping import Wrapping
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.errors import DiskFull, WrongBackbone
from llama_demo.licences import Licence
from llama_demo.messages import languages, messages
from llama_demo.tokenizer import Tokenizer
from tests import tiny

TEXTS = [
    *(f"boats {'and nets ' * (place % 17)}{place}" for place in range(60)),
    "서울은 한국의 수도이다",
    "<|im_end|> is only text, </s> too",
    " leading and trailing ",
    "\n\nlines\r\n",
]


LICENCE = Licence("Apache-2.0", "https://example.org/licence")


def make_head(**changes: Any) -> Head:
    weight = np.random.default_rng(4).normal(size=(3, 128)).astype(np.float32) / 4
    values: dict[str, Any] = {
        "name": "mine",
        "labels": ("a", "b", "c"),
        "weight": weight,
        "prompt": "Review: {text}\nSentiment:",
        "backbone": Backbone("tiny"),
        "figures": {"accuracy": 0.8125},
    }
    return Head(**{**values, **changes})


def without_padding(folder: Path, target: Path) -> Path:
    """The same checkpoint as one that names no padding token, as Llama-2's do not."""
    shutil.copytree(folder, target)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (target / name).is_file():
            values = json.loads((target / name).read_text(encoding="utf-8"))
            values.pop("pad_token", None)
            (target / name).write_text(json.dumps(values), encoding="utf-8")
    return target


@pytest.fixture(params=["padding", "no padding", "sentencepiece"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Path:
    if request.param == "sentencepiece":
        return tiny_sentencepiece_folder
    return tiny_folder if request.param == "padding" else without_padding(tiny_folder, tmp_path / "unpadded")


def ours(folder: Path, head: Head, texts: list[str]) -> Any:
    """The app's own scores, in one batch and each text alone."""
    tokenizer, wrapping = Tokenizer.load(folder), Wrapping(head.prompt)
    engine = TransformersEngine(folder, name="tiny", eos_ids=(), context_tokens=tiny.CONTEXT_TOKENS, reproducible=True)
    try:
        ids = [wrapping.read(tokenizer, text, tiny.CONTEXT_TOKENS).ids for text in texts]
        together = Features(10**8).embed(engine, "tiny", ids, lambda _, __: True)
        assert together is not None
        alone = np.concatenate([engine.embed([each]) for each in ids])
        return head.scores(together), head.scores(alone)
    finally:
        engine.close()


def theirs(folder: Path, texts: list[str], side: str) -> Any:
    """Logits of plain transformers, padded on `side`, as the model card says."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), padding_side=side)
    model, info = AutoModelForSequenceClassification.from_pretrained(str(folder), output_loading_info=True)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    prompt = json.loads((folder / "config.json").read_text(encoding="utf-8"))["classifier_prompt"]
    wrapped = [prompt.replace("{text}", text) for text in texts]
    batch = tokenizer(wrapped, return_tensors="pt", padding=True, split_special_tokens=True)
    with torch.no_grad():
        return model.eval()(**batch)


def test_a_batch_of_64_alone_and_in_plain_transformers_have_the_same_scores(folder: Path, tmp_path: Path) -> None:
    head = make_head()
    export(head, read_folder(folder), tmp_path / "exported", LICENCE, messages())
    together, alone = ours(folder, head, TEXTS)
    assert np.abs(together - alone).max() <= 1e-4
    assert together.std(axis=0).min() > 0.01
    for side in ("left", "right"):
        logits = theirs(tmp_path / "exported", TEXTS, side).logits
        assert np.abs(logits.softmax(-1).numpy() - together).max() <= 1e-4


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_other_kinds_of_heads_are_exported_as_such(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    head = make_head(problem_type=kind)
    export(head, read_folder(tiny_folder), tmp_path / "exported", LICENCE, messages())
    logits = theirs(tmp_path / "exported", TEXTS[:5], "right").logits
    together, _ = ours(tiny_folder, head, TEXTS[:5])
    wanted = logits if kind == "regression" else logits.sigmoid()
    assert np.abs(wanted.numpy() - together).max() <= 1e-4
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["problem_type"] == kind


def test_a_backbone_from_a_gguf_file_is_written_exactly(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(tiny_folder, file, to="f16")
    write_tokenizer(file, tmp_path / "tokenizer")
    export(make_head(), read_gguf(file, tmp_path / "tokenizer"), tmp_path / "exported", LICENCE, messages())
    logits = theirs(tmp_path / "exported", TEXTS[:20], "right").logits
    together, _ = ours(tiny_folder, make_head(), TEXTS[:20])
    assert np.abs(logits.softmax(-1).numpy() - together).max() <= 5e-3


@pytest.mark.parametrize("language", languages())
def test_the_card_says_what_to_wrap_a_text_in_how_good_it_is_and_its_program_runs(
    language: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    export(make_head(), read_folder(tiny_folder), tmp_path / "exported", LICENCE, messages(language))
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    assert repr("Review: {text}\nSentiment:") in card
    assert "0.812" in card
    assert "a, b, c" in card
    assert 'license: "apache-2.0"' in card
    monkeypatch.chdir(tmp_path / "exported")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = [float(each) for each in re.findall(r"-?\d+\.\d+", capsys.readouterr().out)]
    logits = theirs(tmp_path / "exported", ["your text"], "right").logits
    assert printed == pytest.approx(logits[0].tolist(), abs=1e-3)


def test_what_llama_2s_licence_asks_for_is_in_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone"
    shutil.copytree(tiny_folder, backbone)
    (backbone / "LICENSE.txt").write_text("the agreement")
    llama = Licence("Llama 2 Community License", "https://example.org/llama")
    export(make_head(), read_folder(backbone), tmp_path / "exported", llama, messages())
    assert "Meta Platforms" in (tmp_path / "exported" / "NOTICE").read_text()
    assert (tmp_path / "exported" / "LICENSE.txt").read_text() == "the agreement"
    assert 'license: "llama2"' in (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")


def test_what_a_strangers_head_says_of_its_backbone_cannot_write_the_card(tiny_folder: Path, tmp_path: Path) -> None:
    hostile = make_head(backbone=Backbone("tiny", 'x/y"\nlicense: mit'))
    export(hostile, read_folder(tiny_folder), tmp_path / "exported", Licence("", ""), messages())
    front = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert "mit" not in front
    assert 'license_name: "unknown"' in front


def test_what_cannot_be_written_leaves_nothing_behind(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = make_head(weight=np.ones((3, 64), np.float32))
    with pytest.raises(WrongBackbone):
        export(narrow, read_folder(tiny_folder), tmp_path / "exported", LICENCE, messages())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFull):
        export(make_head(), read_folder(tiny_folder), tmp_path / "exported", LICENCE, messages())
    assert list(tmp_path.iterdir()) == []

"""LoRA adapters with a saved head, made by peft itself and given as the model to start with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llama_demo.classify import adapter
from llama_demo.classify.adapter import is_adapter, merged
from llama_demo.errors import BadHead, UntrainedHead, WrongBackbone
from tests.classify.test_checkpoint import TEXTS, last, runtime_on

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def lora(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a user's own training would have saved it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(3)
    base = LlamaForSequenceClassification.from_pretrained(str(tiny_folder), num_labels=3, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("made") / "own-adapter"
    model.save_pretrained(str(folder))
    return folder


def by_peft(folder: Path, base: Path) -> Any:
    """What peft itself says of each text, alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    model = LlamaForSequenceClassification.from_pretrained(str(base), num_labels=3, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1) for text in TEXTS]
    return torch.stack(rows).numpy()


def changed(lora: Path, folder: Path, *, config: dict[str, Any] | None = None, tensors: Any = None) -> Path:
    shutil.copytree(lora, folder)
    if config is not None:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / CONFIG).write_text(json.dumps({**values, **config}), encoding="utf-8")
    if tensors is not None:
        save_file({**tensors}, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_an_adapter_classifies_as_peft_does(lora: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with runtime_on(lora, tmp_path / "cache") as runtime:
        assert runtime.default_model == "own-adapter"
        verdicts = last(runtime.classification.classify(TEXTS, "own-adapter")).verdicts
    made = np.array([list(verdict.scores.values()) for verdict in verdicts])
    assert np.abs(made - by_peft(lora, tiny_folder)).max() <= 1e-4


def test_it_is_merged_once(lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = merged(lora, tmp_path)
    monkeypatch.setattr(adapter, "_merge", lambda *_: pytest.fail("merged again"))
    assert merged(lora, tmp_path) == made
    assert not is_adapter(made)


def test_without_its_saved_head_it_never_yields_a_number(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    del tensors["base_model.model.score.weight"]
    folder = changed(lora, tmp_path / "headless", tensors=tensors)
    with pytest.raises(UntrainedHead, match="modules_to_save"):
        runtime_on(folder, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/models/*/*"))


def test_what_is_no_such_adapter_is_refused(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    score = "base_model.model.score.weight"
    with pytest.raises(BadHead, match="IA3"):
        merged(changed(lora, tmp_path / "kind", config={"peft_type": "IA3"}), tmp_path)
    with pytest.raises(BadHead, match="no matrix"):
        merged(changed(lora, tmp_path / "flat", tensors={**tensors, score: np.ones(3, np.float32)}), tmp_path)
    with pytest.raises(BadHead, match="not on this machine"):
        merged(changed(lora, tmp_path / "lost", config={"base_model_name_or_path": "./nowhere"}), tmp_path)
    garbled = changed(lora, tmp_path / "garbled")
    (garbled / CONFIG).write_text("{")
    with pytest.raises(BadHead, match="cannot be read"):
        merged(garbled, tmp_path)
    place = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    half = {name: each for name, each in tensors.items() if name != place}
    with pytest.raises(BadHead, match="lacks"):
        merged(changed(lora, tmp_path / "half", tensors=half), tmp_path)
    pickled = changed(lora, tmp_path / "pickled")
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    with pytest.raises(BadHead, match="pickle"):
        merged(pickled, tmp_path)


def test_an_adapter_of_another_base_is_refused(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    score = "base_model.model.score.weight"
    wide = {**tensors, score: np.ones((3, 256), np.float32)}
    with pytest.raises(WrongBackbone, match="256"):
        merged(changed(lora, tmp_path / "wide", tensors=wide), tmp_path)
    deep = {name.replace("layers.0", "layers.7"): each for name, each in tensors.items()}
    with pytest.raises(WrongBackbone, match=r"layers\.7"):
        merged(changed(lora, tmp_path / "deep", tensors=deep), tmp_path)
    place = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    with pytest.raises(BadHead, match="does not fit"):
        merged(changed(lora, tmp_path / "thin", tensors={**tensors, place: np.ones((4, 96), np.float32)}), tmp_path)

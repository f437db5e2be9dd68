"""LoRA adapters with a saved head, made by peft itself and given as the model to start with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llama_demo.engines import Abilities
from llama_demo.errors import BadCheckpoint, BadHead, InvalidParameter, LoadFailed, UntrainedHead, WrongBackbone
from llama_demo.messages import messages
from llama_demo.model_errors import BaseMissing, WrongBase
from tests.classify.test_checkpoint import TEXTS, last, runtime_on
from tests.test_adapters import GREEDY, PROMPT, without_ends, write_adapter
from tests.test_adapters import by_peft as by_causal_peft

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SCORE = "base_model.model.score.weight"


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


STARTED = """
import sys
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.values import ModelState

def nothing_loaded():
    assert not {{"torch", "transformers", "peft"}} & set(sys.modules)
    assert runtime.status("own-adapter").state is ModelState.ABSENT

with Runtime(read_settings({given!r}, {{}})) as runtime:
    nothing_loaded()
"""
PREPARED = """
    from llama_demo import ui
    ui.build(runtime)
    nothing_loaded()
    runtime.prepare("own-adapter")
    ticket, steps = runtime.registry.request("own-adapter"), set()
    while (lease := ticket.wait(0.001)) is None:
        steps.add(ticket.progress.step)
    lease.release()
    assert {{"load", "warm_up"}} <= steps, steps
"""


@pytest.mark.parametrize(
    "script", [STARTED, pytest.param(STARTED + PREPARED, marks=pytest.mark.slow)], ids=["started", "prepared"]
)
def test_nothing_of_it_is_loaded_before_the_page_is_up(script: str, lora: Path, tmp_path: Path) -> None:
    given = {"model": str(lora), "cache_dir": str(tmp_path / "cache"), "memory_gb": "2"}
    command = [sys.executable, "-c", script.format(given=given)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr


def test_it_shares_its_base_which_stays_as_it_was_and_it_writes_nothing(lora: Path, tmp_path: Path) -> None:
    with runtime_on(lora, tmp_path / "cache") as runtime, runtime.registry.lease("own-adapter") as own:
        assert own.engine.abilities == Abilities(generate=False, score=False, embed=True)
        with runtime.registry.lease("own-adapter-base") as base:
            assert base.engine.abilities.generate
            ids = [1, 40, 77, 120]
            assert np.abs(own.engine.embed([ids]) - base.engine.embed([ids])).max() > 0.1
            assert runtime.registry.status("own-adapter").bytes < runtime.registry.status("own-adapter-base").bytes
    assert not list(tmp_path.glob("cache/models/**/*.safetensors"))


def test_its_sheet_is_that_of_its_base(lora: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with runtime_on(lora, tmp_path / "cache") as runtime, runtime_on(tiny_folder, tmp_path / "cache") as whole:
        sheet = runtime.sheet("own-adapter")
        assert replace(sheet, name="tiny-llama", title="tiny-llama") == whole.sheet("tiny-llama")
        assert sheet.title == "own-adapter"
        (summary,) = [each for each in runtime.models() if each.name == "own-adapter"]
        assert summary.where == "here"
        assert not summary.can_convert
        with pytest.raises(InvalidParameter):
            runtime.management.convert("own-adapter")
        assert runtime.pieces("own-adapter", "bread", with_bos=True)


def test_an_adapter_without_a_head_writes(tiny_folder: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "poet", tiny_folder, 1)
    with runtime_on(folder, tmp_path / "cache") as runtime:
        assert runtime.default_model == "poet"
        assert runtime.classification.names(["poet"]) == []
        with runtime.registry.lease("poet") as loaded:
            ids = [token.id for token in loaded.engine.generate(PROMPT, GREEDY)]
            assert ids == without_ends(loaded, by_causal_peft(tiny_folder, folder))


def test_without_its_saved_head_it_never_yields_a_number(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    del tensors[SCORE]
    folder = changed(lora, tmp_path / "headless", tensors=tensors)
    with pytest.raises(UntrainedHead, match="not_in_adapter"):
        runtime_on(folder, tmp_path / "cache")


def refused(folder: Path, tmp_path: Path) -> BaseException:
    """Why it is, once its load is tried."""
    with runtime_on(folder, tmp_path / "cache") as runtime:
        with pytest.raises(LoadFailed) as caught, runtime.registry.lease(runtime.default_model):
            pass
        with runtime.registry.lease(f"{runtime.default_model}-base"):
            return caught.value.cause


def test_what_is_no_such_adapter_is_refused_before_the_page_is_up(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    cache = tmp_path / "cache"
    with pytest.raises(BadCheckpoint, match="adapter_kind, kind='IA3'"):
        runtime_on(changed(lora, tmp_path / "kind", config={"peft_type": "IA3"}), cache)
    with pytest.raises(BadHead, match="no_matrix"):
        runtime_on(changed(lora, tmp_path / "flat", tensors={**tensors, SCORE: np.ones(3, np.float32)}), cache)
    with pytest.raises(BaseMissing):  # no name of the Hub's either
        runtime_on(changed(lora, tmp_path / "named", config={"base_model_name_or_path": "some--body/llama"}), cache)
    with pytest.raises(BaseMissing) as caught:
        runtime_on(changed(lora, tmp_path / "lost", config={"base_model_name_or_path": "someone/nothing"}), cache)
    assert "hf download someone/nothing" in messages("en").error(caught.value)
    assert "hf download someone/nothing" in messages("ko").error(caught.value)
    with pytest.raises(BadCheckpoint, match="no_base"):
        runtime_on(changed(lora, tmp_path / "unnamed", config={"base_model_name_or_path": None}), cache)
    garbled = changed(lora, tmp_path / "garbled")
    (garbled / CONFIG).write_text("{")
    with pytest.raises(BadCheckpoint, match="part_unreadable"):
        runtime_on(garbled, cache)
    pickled = changed(lora, tmp_path / "pickled")
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.pickled"):
        runtime_on(pickled, cache)


def test_an_adapter_with_a_part_missing_is_refused(lora: Path, tmp_path: Path) -> None:
    place = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    half = {name: each for name, each in load_file(lora / WEIGHTS).items() if name != place}
    cause = refused(changed(lora, tmp_path / "half", tensors=half), tmp_path)
    assert isinstance(cause, BadCheckpoint)
    assert cause.problem.key == "checkpoint.lacks"


def test_an_adapter_of_another_base_is_refused(lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / WEIGHTS)
    wide = {**tensors, SCORE: np.ones((3, 256), np.float32)}
    with pytest.raises(WrongBackbone, match="base_width, head=256"):
        runtime_on(changed(lora, tmp_path / "wide", tensors=wide), tmp_path / "cache")
    layer = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    deep = {**tensors, layer.replace("layers.0", "layers.9"): tensors[layer]}
    assert isinstance(refused(changed(lora, tmp_path / "deep", tensors=deep), tmp_path), WrongBase)
    thin = {**tensors, layer: np.ones((4, 96), np.float32)}
    assert isinstance(refused(changed(lora, tmp_path / "thin", tensors=thin), tmp_path), WrongBase)

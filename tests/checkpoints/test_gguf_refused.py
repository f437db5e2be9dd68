"""Folders that a GGUF file could not hold exactly are refused by name, instead of written a little wrong."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.gguf_tokenizer import LLAMA3_WORDS
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.errors import BadCheckpoint

Weights = dict[str, NDArray[np.float32]]
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny Llama of the test's own to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def words(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def retokenize(folder: Path, pre_tokenizer: object, normalizer: object = None, **model: object) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}
    document["model"] |= model
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda weights: weights.pop(UP), f"tensor_missing, name='{UP}'"),
        (lambda weights: weights.update({UP: weights[UP][:64]}), rf"{UP}', there='\(64, 128\)', shape='\(256, 128\)'"),
        (lambda weights: weights["lm_head.weight"].__setitem__((5, 5), 70000.0), "too_large"),
    ],
    ids=["missing", "misshapen", "too large"],
)
def test_a_tensor_that_is_not_as_it_should_be_is_named(
    folder: Path, spoil: Callable[[Weights], object], problem: str
) -> None:
    from safetensors.numpy import load_file, save_file

    weights = {name: array.copy() for name, array in load_file(folder / "model.safetensors").items()}
    spoil(weights)
    save_file(weights, folder / "model.safetensors")
    before = sorted(folder.iterdir())
    with pytest.raises(BadCheckpoint, match=problem):
        gguf.write_gguf(folder, folder / "model.gguf", to="f16")
    assert sorted(folder.iterdir()) == before


def test_more_layers_than_there_are_tensors_are_refused_at_once(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2**31 - 1}), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match="tensor_missing"):
        gguf.write_gguf(folder, folder / "model.gguf")


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        (BYTES, False, "gpt-2"),
        (words(DIGITS, BYTES), False, "smollm"),
        (words(split(LLAMA3_WORDS), BYTES | {"use_regex": False}), True, "llama-bpe"),
    ],
    ids=["gpt-2", "smollm", "llama-bpe"],
)
def test_a_pre_tokenizer_has_gguf_s_name(
    folder: Path, pre_tokenizer: dict[str, Any], ignore_merges: bool, name: str
) -> None:
    retokenize(folder, pre_tokenizer, ignore_merges=ignore_merges)
    assert vocabulary_fields(folder, 384)["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer", "ignore_merges", "problem"),
    [
        (words(split(r"\p{N}{1,3}|\p{L}+"), BYTES | {"use_regex": False}), None, True, r"Split\+ByteLevel"),
        (words(DIGITS | {"individual_digits": False}, BYTES), None, False, r"Digits\+ByteLevel"),
        (BYTES | {"add_prefix_space": True}, None, False, "ByteLevel"),
        (None, None, False, "(none)"),
        (BYTES, {"type": "NFC"}, False, "tokenizer_changes"),
        (BYTES, None, True, "tokenizer_changes"),
    ],
    ids=["another pattern", "digits together", "a space first", "none", "NFC", "whole words first"],
)
def test_a_near_miss_of_a_known_pre_tokenizer_is_refused(
    folder: Path, pre_tokenizer: object, normalizer: object, ignore_merges: bool, problem: str
) -> None:
    retokenize(folder, pre_tokenizer, normalizer, ignore_merges=ignore_merges)
    with pytest.raises(BadCheckpoint, match=problem):
        vocabulary_fields(folder, 384)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "unigram"}, "no_bpe"),
        ({"remove_extra_whitespaces": True}, "normalizes"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizes"),
    ],
    ids=["unigram", "spaces", "nfkc"],
)
def test_a_sentencepiece_model_that_gguf_cannot_hold_is_refused(
    folder: Path, changes: dict[str, Any], problem: str
) -> None:
    import sentencepiece

    settings: dict[str, Any] = {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the harbour lies below the old town", "the boats come back with the tide"]),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **(settings | changes),
    )
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(BadCheckpoint, match=problem):
        vocabulary_fields(folder, 384)

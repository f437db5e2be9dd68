"""Tokens that were added to a SentencePiece tokenizer, on their way into a GGUF file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as FastTokenizer

from llama_demo.checkpoints import gguf
from llama_demo.errors import BadCheckpoint
from llama_demo.messages import messages
from llama_demo.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def wider(tiny_sentencepiece_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with four more rows, and only `tokenizer.model` to read."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wider")
    model = LlamaForCausalLM.from_pretrained(str(tiny_sentencepiece_folder))
    model.resize_token_embeddings(420, mean_resizing=False)
    model.save_pretrained(str(folder))
    shutil.copyfile(tiny_sentencepiece_folder / "tokenizer.model", folder / "tokenizer.model")
    return folder


def written(folder: Path, target: Path, files: dict[str, Any]) -> Tokenizer:
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    try:
        gguf.write_gguf(folder, target / "model.gguf", to="f16")
    finally:
        for name in files:
            (folder / name).unlink()
    gguf.write_tokenizer(target / "model.gguf", target)
    return Tokenizer.load(target)


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens.json": {"<pad>": 416, "<tool>": 417}, "special_tokens_map.json": {"pad_token": "<pad>"}},
        {
            "added_tokens.json": {"<pad>": 416, "<tool>": 417},
            "tokenizer_config.json": {"pad_token": {"content": "<pad>"}},
        },
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {
                    "0": {"content": "<unk>", "special": True},
                    "416": {"content": "<pad>", "special": True},
                    "417": {"content": "<tool>", "special": False},
                }
            }
        },
    ],
)
def test_added_tokens_keep_their_numbers_and_what_they_are(files: dict[str, Any], wider: Path, tmp_path: Path) -> None:
    tokenizer = written(wider, tmp_path, files)
    assert 417 in tokenizer.encode("The <tool> harbour")
    assert 416 not in tokenizer.encode("The <pad> harbour"), "what people write never becomes a special token"
    assert FastTokenizer.from_file(str(tmp_path / "tokenizer.json")).id_to_token(416) == "<pad>"
    assert tokenizer.decode([416, *tokenizer.encode("harbour")]).strip() == "harbour"


def test_without_a_list_the_rows_that_have_no_token_stay_unused(wider: Path, tmp_path: Path) -> None:
    tokenizer = written(wider, tmp_path, {})
    assert 417 not in tokenizer.encode("The <tool> harbour")


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ({"<tool>": 5}, "takes the number of"),
        ({"<tool>": 900}, "more tokens than"),
        ({"<tool>": "x"}, "has no number"),
        ({"<tool>": True}, "has no number"),
        ({"<tool>": -1}, "has no number"),
    ],
)
def test_a_list_that_contradicts_the_model_is_refused(
    added: dict[str, Any], problem: str, wider: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        written(wider, tmp_path, {"added_tokens.json": added})
    assert problem in messages().reason(caught.value.problem)

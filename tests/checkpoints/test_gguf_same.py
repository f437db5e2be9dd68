"""What a GGUF file says is what its source says: any text's tokens, and the tokens that follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer

from llama_demo.checkpoints import gguf
from llama_demo.tokenizer import Tokenizer
from tests import tiny

WORDS = st.lists(st.sampled_from(tiny.CORPUS.split()), max_size=8).map(" ".join)
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab 12\n\t안녕🎉▁'.", max_size=30) | WORDS
"""Only words of the tokenizers' own corpus are merged in many steps, whose order matters."""


def there_and_back(source: Path, folder: Path) -> Path:
    """The tokenizer of a GGUF file made from `source`."""
    gguf.write_gguf(source, folder / "model.gguf", to="q8_0")
    gguf.write_tokenizer(folder / "model.gguf", folder / "tokenizer")
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def byte_level(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(there_and_back(tiny_folder, tmp_path_factory.mktemp("bytes")))


@pytest.fixture(scope="module")
def sentencepiece_like(tiny_sentencepiece_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(there_and_back(tiny_sentencepiece_folder, tmp_path_factory.mktemp("pieces")))


@given(text=TEXT)
def test_any_text_has_the_ids_of_the_original_byte_level_tokenizer(
    text: str, byte_level: Tokenizer, tiny_folder: Path
) -> None:
    original = FastTokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    original.encode_special_tokens = True
    assert byte_level.encode(text) == original.encode(text, add_special_tokens=False).ids


@given(text=TEXT)
def test_any_text_has_the_ids_of_sentencepiece_itself(
    text: str, sentencepiece_like: Tokenizer, tiny_sentencepiece_folder: Path
) -> None:
    from sentencepiece import SentencePieceProcessor

    judge = SentencePieceProcessor(model_file=str(tiny_sentencepiece_folder / "tokenizer.model"))
    assert sentencepiece_like.encode(text) == judge.encode(text)


@pytest.mark.parametrize("name", ["tiny_folder", "tiny_sentencepiece_folder"])
def test_a_file_in_half_precision_is_the_original_rounded_and_nothing_else(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The rounding alone can turn a reply where two tokens are all but equal: so the judge is rounded too."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(name)
    gguf.write_gguf(folder, tmp_path / "model.gguf", to="f16")
    rounded = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()
    written = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file="model.gguf", dtype=torch.float32)
    for first in (3, 10, 100):
        prompt = torch.arange(first, first + 20)[None]
        replies = [
            model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=20, max_new_tokens=20
            )
            for model in (rounded, written)
        ]
        assert replies[0].tolist() == replies[1].tolist()
        assert torch.allclose(rounded(prompt).logits, written(prompt).logits, atol=1e-5)

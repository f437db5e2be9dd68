from __future__ import annotations

from pathlib import Path

import pytest

from llama_demo.errors import BadCheckpoint
from llama_demo.tokenizer import Tokenizer

TEXTS = ["Hello  world", " leading", "서울 🦙", "line\n\nline", "12,345", "", "<|im_start|>", "</s><s>"]


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def folder(request: pytest.FixtureRequest, tiny_folder: Path, tiny_sentencepiece_folder: Path) -> Path:
    return tiny_folder if request.param == "byte-level" else tiny_sentencepiece_folder


@pytest.mark.parametrize("text", TEXTS)
def test_text_goes_to_ids_and_back(folder: Path, text: str) -> None:
    tokenizer = Tokenizer.load(folder)
    back = tokenizer.decode(tokenizer.encode(text))
    assert back in (text, text.removeprefix(" "))  # SentencePiece's own first space is part of every text


@pytest.mark.parametrize("text", TEXTS[:6])
def test_the_ids_are_those_of_the_reference(folder: Path, text: str) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(str(folder))
    assert Tokenizer.load(folder).encode(text) == reference(text, add_special_tokens=False)["input_ids"]


def test_a_marker_in_plain_text_is_ordinary_text(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    special = set(tokenizer.special_tokens.values())
    for token in tokenizer.special_tokens:
        assert not special & set(tokenizer.encode(f"a {token} b"))


def test_the_end_tokens_are_those_of_the_configuration_and_the_template(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_ids == {2}
    assert tokenizer.bos_id == 1


def test_the_template_is_read_from_its_own_file_too(tiny_sentencepiece_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_sentencepiece_folder / name).read_bytes())
    assert Tokenizer.load(tmp_path).chat_template is None
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert Tokenizer.load(tmp_path).chat_template == "{{ messages }}"


@pytest.mark.parametrize("content", [None, "", "{}", "<html>", '{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_is_refused_with_its_path(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadCheckpoint) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.path == str(tmp_path / "tokenizer.json")

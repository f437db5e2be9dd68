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


def test_a_token_is_named_as_people_read_it(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    names = [tokenizer.token_name(number) for number in tokenizer.encode("The 서")]
    assert names[-3:] == ["<0xEC>", "<0x84>", "<0x9C>"]
    assert "".join(names[:-3]).strip() == "The"
    assert [tokenizer.token_name(number) for number in tokenizer.special_tokens.values()] == [*tokenizer.special_tokens]
    assert tokenizer.token_name(tokenizer.vocabulary_size + 5) == ""


def test_whole_characters_in_a_token_with_a_part_of_one_are_readable() -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import decoders
    from tokenizers.models import BPE

    backend = FastTokenizer(BPE({"Ġaì": 0}, []))
    backend.decoder = decoders.ByteLevel()
    assert Tokenizer(backend.to_str(), {}, None).token_name(0) == " a<0xEC>"


@pytest.mark.parametrize(("given", "ids"), [(True, [1]), (False, []), (None, [])])
def test_a_raw_text_begins_as_the_model_was_trained_and_an_empty_one_with_the_bos(
    folder: Path, given: bool | None, ids: list[int]
) -> None:
    config = {"bos_token": "<s>" if "sentencepiece" in folder.name else "<|im_start|>", "add_bos_token": given}
    tokenizer = Tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"), config, None)
    assert tokenizer.encode_text("The boats") == [*ids, *tokenizer.encode("The boats")]
    assert tokenizer.encode_text("") == [1]


def test_a_tokenizer_that_puts_the_bos_itself_is_taken_at_its_word(folder: Path) -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.processors import TemplateProcessing

    bos = "<s>" if "sentencepiece" in folder.name else "<|im_start|>"
    backend = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    assert Tokenizer(backend.to_str(), {"bos_token": bos}, None).adds_bos


@pytest.mark.parametrize("content", [None, "", "{}", "<html>", '{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_is_refused_with_its_path(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadCheckpoint) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.path == str(tmp_path / "tokenizer.json")

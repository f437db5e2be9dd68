"""The playground: a text's tokens, what decoding them one by one loses, and SentencePiece's own view."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from llama_demo.errors import BadCheckpoint, InvalidParameter
from llama_demo.sheet.tokens import facts_of, read_tokenizer, split

TEXT = "The harbour 바나나 🦙"


def test_the_decode_quirk_is_shown(tiny_sentencepiece_folder: Path) -> None:
    pieces = split(read_tokenizer(tiny_sentencepiece_folder), TEXT, with_bos=False)
    assert pieces.joined == TEXT
    assert pieces.alone != TEXT
    assert "".join(piece.text for piece in pieces.pieces) == TEXT
    second = next(piece for piece in pieces.pieces[1:] if piece.raw.startswith("▁"))
    assert second.text == " " + second.alone


def test_bytes_stand_for_the_text_even_where_a_character_has_several_tokens(tiny_sentencepiece_folder: Path) -> None:
    pieces = split(read_tokenizer(tiny_sentencepiece_folder), "🦙", with_bos=False).pieces
    fallback = [piece for piece in pieces if piece.raw.startswith("<0x")]
    assert len(fallback) == 4
    assert b"".join(piece.bytes for piece in fallback) == "🦙".encode()
    assert [piece.text for piece in fallback] == ["", "", "", "🦙"]


def test_sentencepieces_view_stands_beside_the_fast_tokenizers(tiny_sentencepiece_folder: Path) -> None:
    pieces = split(read_tokenizer(tiny_sentencepiece_folder), TEXT, with_bos=True)
    own = SentencePieceProcessor(model_file=str(tiny_sentencepiece_folder / "tokenizer.model"))
    assert pieces.sentencepiece == tuple((number, own.id_to_piece(number)) for number in own.encode(TEXT))
    assert pieces.agrees
    assert pieces.pieces[0].is_special


def test_a_byte_level_tokenizer_has_no_view_of_sentencepiece(tiny_folder: Path) -> None:
    pieces = split(read_tokenizer(tiny_folder), "<|im_end|> ends", with_bos=False)
    assert pieces.sentencepiece is None
    assert not any(piece.is_special for piece in pieces.pieces), "what a visitor writes is no special token"


def test_facts_tell_the_padding_token_and_the_template(tiny_folder: Path, tiny_sentencepiece_folder: Path) -> None:
    own = facts_of(read_tokenizer(tiny_folder), {}, "tiny-llama")
    assert (own.kind, own.padding, own.template) == ("byte_level", "own", "own")
    llama = facts_of(read_tokenizer(tiny_sentencepiece_folder), {"vocab_size": 448}, "llama-2-7b-chat")
    assert (llama.kind, llama.padding, llama.template) == ("sentencepiece", "end", "llama2")
    assert (llama.vocabulary, llama.rows) == (416, 448)
    assert {("<s>", 1), ("</s>", 2)} <= {(special.token, special.id) for special in llama.specials}


def test_a_long_text_and_a_folder_without_a_tokenizer_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter):
        split(read_tokenizer(tiny_folder), "x" * 2001, with_bos=False)
    with pytest.raises(BadCheckpoint):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_text("<!DOCTYPE html>")
    with pytest.raises(BadCheckpoint):
        read_tokenizer(tmp_path)

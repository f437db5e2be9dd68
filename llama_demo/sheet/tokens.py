"""What a tokenizer makes of a text, piece by piece, and what it is: facts for the model sheet and its playground.

Where the folder has SentencePiece's own `tokenizer.model`, its view stands beside the fast tokenizer's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llama_demo import prompts
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.gguf_read import Metadata
from llama_demo.checkpoints.gguf_tokenizer import write_described_tokenizer
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.checkpoints.meta_params import CONTEXT_TOKENS, PARAMS, find_tokenizer
from llama_demo.detokenize import PieceStream
from llama_demo.errors import BadCheckpoint, InvalidParameter
from llama_demo.reasons import Reason
from llama_demo.sheet.sentencepiece import SENTENCEPIECE, open_sentencepiece
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import check_text

MOST_CHARACTERS = 2000
_KEPT = 4
"""Tokenizers that are kept for the next look."""


@dataclass(frozen=True, slots=True)
class Special:
    name: str
    token: str
    id: int


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """`padding` is the token that a batch is filled up with: its own, the end token in its place, or none.
    `rows` are the embedding's; those beyond `vocabulary` mean nothing."""

    kind: Literal["sentencepiece", "byte_level", "other"]
    vocabulary: int
    rows: int
    specials: tuple[Special, ...]
    adds_bos: bool
    strips_spaces: int
    padding: Literal["own", "end", "none"]
    template: Literal["own", "llama2", "none"]
    has_sentencepiece: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """One token. `raw` is how the vocabulary writes it, `bytes` what it stands for, `alone` what decoding this id alone
    gives, and `text` what it adds in its place (empty inside a character)."""

    id: int
    raw: str
    bytes: bytes
    alone: str
    text: str
    is_special: bool


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text as tokens. `joined` is what all of them decode to together, `alone` what they decode to one by one."""

    pieces: tuple[Piece, ...]
    joined: str
    alone: str
    sentencepiece: tuple[tuple[int, str], ...] | None
    """SentencePiece's own ids and pieces; None without its file."""

    @property
    def agrees(self) -> bool:
        """Whether SentencePiece gives the same ids."""
        own = [piece.id for piece in self.pieces if not piece.is_special]
        return self.sentencepiece is None or own == [number for number, _ in self.sentencepiece]


@dataclass(frozen=True, slots=True)
class ReadTokenizer:
    """`model` is SentencePiece's file, where it is there."""

    tokenizer: Tokenizer
    model: Path | None


def read_tokenizer(files: Path) -> ReadTokenizer:
    """The tokenizer of a GGUF file or of a folder in either format. Raises `BadCheckpoint`."""
    return _read(files, files.stat().st_mtime_ns)


@lru_cache(maxsize=_KEPT)
def _read(files: Path, _changed: int) -> ReadTokenizer:
    if files.is_file():
        with tempfile.TemporaryDirectory() as made:
            gguf.write_tokenizer(files, Path(made))
            return ReadTokenizer(Tokenizer.load(Path(made)), None)
    folder = find_tokenizer(files) if (files / PARAMS).is_file() else files
    model = folder / SENTENCEPIECE
    kept = model if model.is_file() else None
    if (folder / "tokenizer.json").is_file():
        return ReadTokenizer(Tokenizer.load(folder), kept)
    if kept is None:
        raise BadCheckpoint(str(folder), Reason("checkpoint.neither_tokenizer"))
    with tempfile.TemporaryDirectory() as made:
        count = open_sentencepiece(model).get_piece_size()
        fields = {**vocabulary_fields(folder, count), "llama.context_length": CONTEXT_TOKENS}
        write_described_tokenizer(Metadata(model, fields), Path(made))
        return ReadTokenizer(Tokenizer.load(Path(made)), kept)


def facts_of(read: ReadTokenizer, config: Mapping[str, Any], name: str) -> TokenizerFacts:
    """`config` is the model's own, `name` says whether it is one of Llama-2's chat models."""
    tokenizer = read.tokenizer
    own_template: Literal["own", "llama2", "none"] = "own"
    if not tokenizer.chat_template:
        own_template = "none" if prompts.template_for(name) is None else "llama2"
    specials = [
        Special(kind, token, number)
        for kind, token in tokenizer.named_tokens.items()
        if (number := tokenizer.backend.token_to_id(token)) is not None
    ]
    known = {special.id for special in specials}
    rest = [Special("", token, number) for token, number in tokenizer.special_tokens.items() if number not in known]
    has_own = config.get("pad_token_id") not in (None, -1) or "pad_token" in tokenizer.named_tokens
    return TokenizerFacts(
        kind=_kind(tokenizer),
        vocabulary=tokenizer.vocabulary_size,
        rows=int(config.get("vocab_size") or tokenizer.vocabulary_size),
        specials=(*specials, *sorted(rest, key=lambda special: special.id)),
        adds_bos=tokenizer.adds_bos,
        strips_spaces=tokenizer.strips_spaces,
        padding="own" if has_own else "end" if tokenizer.eos_ids else "none",
        template=own_template,
        has_sentencepiece=read.model is not None,
    )


def split(read: ReadTokenizer, text: str, *, with_bos: bool) -> Pieces:
    """`text` as plain text, after the model's start token where `with_bos`.

    Raises `InvalidParameter` for more than `MOST_CHARACTERS`, `InvalidUnicode`.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidParameter("text", f"{len(text)} characters", Reason("expected.at_most", most=MOST_CHARACTERS))
    check_text(text)
    tokenizer = read.tokenizer
    ids = tokenizer.encode(text)
    if with_bos and tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id, *ids]
    stream, special = PieceStream(tokenizer), set(tokenizer.special_tokens.values())
    pieces = [
        Piece(
            id=number,
            raw=tokenizer.backend.id_to_token(number) or "",
            bytes=tokenizer.token_bytes(number),
            alone=tokenizer.decode([number]),
            text=stream.add([number]),
            is_special=number in special,
        )
        for number in ids
    ]
    own = None
    if read.model is not None:
        processor = open_sentencepiece(read.model)
        own = tuple((number, processor.id_to_piece(number)) for number in processor.encode(text))
    return Pieces(tuple(pieces), tokenizer.decode(ids), "".join(piece.alone for piece in pieces), own)


def _kind(tokenizer: Tokenizer) -> Literal["sentencepiece", "byte_level", "other"]:
    if tokenizer.backend.token_to_id("<0x00>") is not None:
        return "sentencepiece"
    return "byte_level" if tokenizer.backend.token_to_id("Ġ") is not None else "other"

"""SentencePiece's own file, opened once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SENTENCEPIECE = "tokenizer.model"


@lru_cache(maxsize=4)
def open_sentencepiece(path: Path) -> SentencePieceProcessor:
    """Raises `BadCheckpoint` for a file that is none."""
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):
        raise BadCheckpoint(str(path), Reason("checkpoint.no_sentencepiece")) from None

"""A model's sheet and its tokenizer's playground as the Models tab shows them, in the visitor's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_demo.messages import Messages, size
from llama_demo.placement import FAST_CACHE_BYTES
from llama_demo.ui.asked import View

if TYPE_CHECKING:
    from llama_demo.fitting import Needs
    from llama_demo.sheet import Sheet
    from llama_demo.sheet.config import Field
    from llama_demo.sheet.parameters import Attention
    from llama_demo.sheet.tokens import Piece, Pieces, TokenizerFacts

_NUMBER_BYTES = {8: FAST_CACHE_BYTES, 16: 2.0, 32: 4.0}
"""What a number of the cache takes in each type that there is."""


def sheet_view(sheet: Sheet, needs: Needs | None, words: Messages) -> View:
    """Everything in it, in the order in which it is read. `needs` is what the model takes here, where that is known."""
    return {
        "name": sheet.name,
        "title": words("sheet.title", title=sheet.title),
        "source": _source(sheet, words),
        "total": words("sheet.total", count=_count(sheet.parameters)) if sheet.parts else "",
        "parts": _parts(sheet, words),
        "attention": None if sheet.attention is None else _attention(sheet.attention, words),
        "cache": _cache(sheet, needs, words) if sheet.attention is not None else [],
        "fields": [_field(field, words) for field in sheet.fields],
        "tokenizer": _tokenizer(sheet.tokenizer, words),
        "can_split": sheet.tokenizer is not None,
        "has_sentencepiece": sheet.tokenizer is not None and sheet.tokenizer.has_sentencepiece,
    }


def _source(sheet: Sheet, words: Messages) -> str:
    """Where it is from, and whether its file is used as it is."""
    said = words(f"sheet.source_{sheet.source}")
    types = ", ".join(sheet.rewritten_types)
    rewritten = words("sheet.rewritten", types=types) if types else ""
    return f"{said} {rewritten}".strip()


def _count(number: int) -> str:
    """With thin spaces between the thousands, as both languages read it."""
    return f"{number:,}".replace(",", "\u2009")


def _parts(sheet: Sheet, words: Messages) -> list[View]:
    return [
        {
            "name": words(f"sheet.part_{part.name}"),
            "count": _count(part.count) if part.count else words("sheet.tied"),
            "share": part.count / max(1, sheet.parameters),
            "percent": f"{100 * part.count / max(1, sheet.parameters):.1f} %",
            "each": words("sheet.each_layer", count=_count(part.each)) if part.each else "",
            "help": words(f"sheet.part_{part.name}_help"),
        }
        for part in sheet.parts
    ]


def _attention(attention: Attention, words: Messages) -> View:
    kind = "multi_head" if attention.group == 1 else "multi_query" if attention.kv_heads == 1 else "grouped"
    return {
        "heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "words": words(
            f"sheet.attention_{kind}",
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            group=attention.group,
            size=attention.head_size,
            layers=attention.layers,
        ),
        "queries": words("sheet.query_heads"),
        "keys": words("sheet.kv_heads"),
    }


def _cache(sheet: Sheet, needs: Needs | None, words: Messages) -> list[str]:
    attention, each = sheet.attention, sheet.kv_bytes_per_token
    assert attention is not None
    whole = words("sheet.cache_whole", tokens=_count(sheet.context_tokens), size=size(each * sheet.context_tokens))
    return [
        words(
            "sheet.cache_token",
            layers=attention.layers,
            kv_heads=attention.kv_heads,
            head_size=attention.head_size,
            bytes=_count(each),
            kib=f"{each / 1024:.4g}",
        ),
        *([whole] if sheet.context_tokens else []),
        *([_held(attention, needs, words)] if needs is not None else []),
    ]


def _held(attention: Attention, needs: Needs, words: Messages) -> str:
    """The cache as it is on this machine: in which type, and for how much."""
    numbers = attention.kv_numbers_per_token
    each = needs.cache_bytes / (needs.conversations * needs.context_tokens) / numbers  # and a share of the spare page
    bits = min(_NUMBER_BYTES, key=lambda bits: abs(_NUMBER_BYTES[bits] - each))
    return words(
        "sheet.cache_held",
        device=needs.device,
        type=words(f"sheet.cache_type_{bits}"),
        bytes=_count(round(numbers * _NUMBER_BYTES[bits])),
        size=size(needs.cache_bytes),
        conversations=needs.conversations,
        tokens=_count(needs.context_tokens),
    )


def _field(field: Field, words: Messages) -> View:
    return {
        "name": field.name,
        "value": _value(field.value, words),
        "is_given": field.is_given,
        "note": "" if field.is_given else words("sheet.default"),
        "help": words(f"sheet.field_{field.name}"),
    }


def _value(value: Any, words: Messages) -> str:
    if value is None:
        return words("sheet.none")
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(each, words)}" for name, each in value.items())
    if isinstance(value, bool):
        return words("sheet.yes" if value else "sheet.no")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tokenizer(facts: TokenizerFacts | None, words: Messages) -> list[View]:
    """Its facts as label and value; one sentence where its files are not here."""
    if facts is None:
        return [{"label": words("sheet.tokenizer_missing"), "value": ""}]
    unused = facts.rows - facts.vocabulary
    specials = list(dict.fromkeys(f"{special.token} = {special.id}" for special in facts.specials))
    rows = words("sheet.vocabulary", tokens=_count(facts.vocabulary), rows=_count(facts.rows))
    return [
        {"label": words("sheet.kind"), "value": words(f"sheet.kind_{facts.kind}")},
        {"label": words("sheet.size"), "value": rows if unused else _count(facts.vocabulary)},
        {"label": words("sheet.specials"), "value": ", ".join(specials[:12]) or words("sheet.none")},
        {"label": words("sheet.bos"), "value": words("sheet.bos_added" if facts.adds_bos else "sheet.bos_not_added")},
        {"label": words("sheet.padding"), "value": words(f"sheet.padding_{facts.padding}")},
        {"label": words("sheet.template"), "value": words(f"sheet.template_{facts.template}")},
    ]


def pieces_view(pieces: Pieces, words: Messages) -> View:
    """A text's tokens, what decoding them one by one would lose, and SentencePiece's view where it has one."""
    quirk = "" if pieces.alone == pieces.joined else words("sheet.quirk", alone=pieces.alone, joined=pieces.joined)
    own = pieces.sentencepiece
    return {
        "pieces": [_piece(piece, words) for piece in pieces.pieces],
        "count": words("sheet.piece_count", count=len(pieces.pieces)),
        "joined": pieces.joined,
        "quirk": quirk,
        "sentencepiece": None if own is None else [{"id": number, "raw": raw} for number, raw in own],
        "agrees": "" if own is None else words("sheet.agrees" if pieces.agrees else "sheet.differs"),
    }


def _piece(piece: Piece, words: Messages) -> View:
    return {
        "id": piece.id,
        "raw": piece.raw,
        "bytes": piece.bytes.hex(" ").upper(),
        "text": piece.text,
        "alone": piece.alone,
        "differs": piece.alone != piece.text and not piece.is_special,
        "special": piece.is_special,
        "label": words("sheet.piece", raw=piece.raw, id=piece.id),
    }

"""A Hugging Face folder's tokenizer as GGUF metadata: the way back of `gguf_tokenizer`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_demo.checkpoints.gguf_read import Value
from llama_demo.checkpoints.gguf_tokenizer import BYTE, CONTROL, LLAMA3_WORDS, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

_NAMED = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated", "invert": False},
        {**_BYTES, "use_regex": False},
    ],
}
"""GGUF's names, each for exactly these steps of a tokenizer.json: a near miss would cut texts otherwise."""


def vocabulary_fields(folder: Path, vocab_size: int) -> dict[str, Value]:
    """The `tokenizer.*` metadata for the model in `folder`, whose embedding has `vocab_size` rows.

    Read from tokenizer.json, or where there is none from tokenizer.model. Raises `BadCheckpoint` for a tokenizer that
    is neither byte-level nor SentencePiece's BPE, or whose pre-tokenizer has no name in GGUF.
    """
    if (folder / "tokenizer.json").is_file():
        return _fast_fields(folder, _json(folder / "tokenizer.json"), vocab_size)
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece_fields(folder, vocab_size)
    raise BadCheckpoint(str(folder), Reason("checkpoint.neither_tokenizer"))


def _fast_fields(folder: Path, document: Mapping[str, Any], vocab_size: int) -> dict[str, Value]:
    model = document.get("model") or {}
    if model.get("type") != "BPE":
        raise BadCheckpoint(str(folder), Reason("checkpoint.tokenizer_to_write", kind=model.get("type")))
    added = {token["content"]: token for token in document.get("added_tokens") or []}
    numbers = {**model["vocab"], **{text: int(token["id"]) for text, token in added.items()}}
    tokens = _padded({number: text for text, number in numbers.items()}, folder, vocab_size)
    merges = [_pair(merge) for merge in model["merges"]]
    sentencepiece = bool(model.get("byte_fallback"))
    fields: dict[str, Value] = {"tokenizer.ggml.model": "llama" if sentencepiece else "gpt2"}
    if sentencepiece:
        fields["tokenizer.ggml.add_space_prefix"] = _adds_space(folder, document)
        fields["tokenizer.ggml.scores"] = list[Any](_scores(tokens, merges))
    else:
        pre = _pre_name(folder, document.get("pre_tokenizer"))
        if document.get("normalizer") or bool(model.get("ignore_merges")) != (pre == "llama-bpe"):
            raise BadCheckpoint(str(folder), Reason("checkpoint.tokenizer_changes"))
        fields["tokenizer.ggml.pre"] = pre
        fields["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
    fields["tokenizer.ggml.tokens"] = list[Any](tokens)
    fields["tokenizer.ggml.token_type"] = [
        _kind(token, token in numbers, added, _text(model.get("unk_token")), sentencepiece) for token in tokens
    ]
    bos = _text(_config(folder).get("bos_token"))
    return {**fields, **_config_fields(folder, numbers), "tokenizer.ggml.add_bos_token": _adds_bos(document, bos)}


def _sentencepiece_fields(folder: Path, vocab_size: int) -> dict[str, Value]:
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    try:
        model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    except (OSError, RuntimeError):
        raise BadCheckpoint(str(folder / "tokenizer.model"), Reason("checkpoint.no_sentencepiece")) from None
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.serialized_model_proto())  # type: ignore[attr-defined]
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise BadCheckpoint(str(folder / "tokenizer.model"), Reason("checkpoint.no_bpe"))
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces:
        raise BadCheckpoint(str(folder / "tokenizer.model"), Reason("checkpoint.normalizes"))
    count = model.get_piece_size()
    pieces = {number: model.id_to_piece(number) for number in range(count)}
    added = _added_tokens(folder, pieces)
    tokens = _padded({**pieces, **{number: text for number, (text, _) in added.items()}}, folder, vocab_size)
    # SentencePiece and GGUF number the kinds of pieces alike.
    kinds = [int(piece.type) for piece in proto.pieces] + [UNUSED] * (vocab_size - count)
    for number, (_, special) in added.items():
        kinds[number] = CONTROL if special else USER_DEFINED
    named = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list[Any](tokens),
        "tokenizer.ggml.scores": [model.get_score(number) if number < count else 0.0 for number in range(vocab_size)],
        "tokenizer.ggml.token_type": list[Any](kinds),
        "tokenizer.ggml.add_space_prefix": bool(proto.normalizer_spec.add_dummy_prefix),
        "tokenizer.ggml.add_bos_token": True,
        **{_NAMED[name]: number for name, number in named.items() if number >= 0},
        **_config_fields(folder, {token: number for number, token in enumerate(tokens)}),
    }


def _added_tokens(folder: Path, pieces: Mapping[int, str]) -> dict[int, tuple[str, bool]]:
    """Tokens that were added after the SentencePiece model was made, by number, and whether each is special."""
    path = folder / "added_tokens.json"
    listed = _json(path) if path.is_file() else {}
    config, special = _config(folder), set[str]()
    named = _json(folder / "special_tokens_map.json") if (folder / "special_tokens_map.json").is_file() else {}
    for names in (config, named):
        for name, value in names.items():
            if name.endswith("_token") or name == "additional_special_tokens":
                special |= {_text(each) for each in (value if isinstance(value, list) else [value])}
    added = {number: (text, text in special) for text, number in listed.items()}
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        if str(number).isdigit() and isinstance(token, Mapping):
            added[int(number)] = (_text(token), bool(token.get("special")))
    for number, (text, _) in added.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise BadCheckpoint(str(path), Reason("checkpoint.token_no_number", token=text[:40]))
        if pieces.get(number, text) != text:
            raise BadCheckpoint(str(path), Reason("checkpoint.token_taken", token=text[:40], other=pieces[number]))
    return {number: token for number, token in added.items() if number not in pieces}


def _padded(by_number: Mapping[int, str], folder: Path, vocab_size: int) -> list[str]:
    """All tokens by number: an embedding may have more rows than there are tokens, but not fewer."""
    if max(by_number, default=-1) >= vocab_size:
        raise BadCheckpoint(str(folder), Reason("checkpoint.tokens_over", count=vocab_size))
    return [by_number.get(number, f"[PAD{number}]") for number in range(vocab_size)]


def _config_fields(folder: Path, numbers: Mapping[str, int]) -> dict[str, Value]:
    """What tokenizer_config.json and the chat template say."""
    config, fields = _config(folder), dict[str, Value]()
    for name, key in _NAMED.items():
        if (text := _text(config.get(name))) and text in numbers:
            fields[key] = numbers[text]
    template = folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    if isinstance(chat, str):
        fields["tokenizer.chat_template"] = chat
    return fields


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadCheckpoint(str(path), Reason("checkpoint.no_json")) from None


def _text(value: Any) -> str:
    """A token as it is written, or described; empty for none."""
    text = value.get("content") if isinstance(value, Mapping) else value
    return "" if text is None else str(text)


def _pair(merge: Any) -> tuple[str, str]:
    """A merge is written as a pair, or in older files as one text with a space between the two."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _scores(tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[float]:
    """SentencePiece's scores only order the pieces: the earlier a piece is merged, the better."""
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _kind(token: str, used: bool, added: Mapping[str, Any], unknown: str, sentencepiece: bool) -> int:
    if not used:
        return UNUSED
    if sentencepiece and token == unknown:
        return UNKNOWN
    if token in added:
        return CONTROL if added[token].get("special") else USER_DEFINED
    if sentencepiece and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return BYTE
    return NORMAL


def _parts(step: Any) -> list[dict[str, Any]]:
    """A pre-tokenizer's or normalizer's steps, one or a sequence of them."""
    if not isinstance(step, dict):
        return []
    return list(step.get("pretokenizers") or step.get("normalizers") or step.get("processors") or [step])


def _adds_space(folder: Path, document: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it. Raises `BadCheckpoint` where more is done to it, as GGUF says no more."""
    steps = [*_parts(document.get("normalizer")), *_parts(document.get("pre_tokenizer"))]
    for step in steps:
        whole = step.get("type") == "Metaspace" and not step.get("split", True)
        if not whole and step.get("type") not in ("Prepend", "Replace"):
            raise BadCheckpoint(str(folder), Reason("checkpoint.step", kind=step.get("type")))
    return any(
        step.get("type") == "Prepend" or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _adds_bos(document: Mapping[str, Any], bos: str) -> bool:
    for step in _parts(document.get("post_processor")):
        if step.get("type") == "TemplateProcessing":
            first = (step.get("single") or [{}])[0].get("SpecialToken")
            return first is not None and first.get("id") == bos
    return False


def _pre_name(folder: Path, pre_tokenizer: Any) -> str:
    """GGUF's name for how text is cut into words before merging."""
    steps = [_defaults(step) for step in _parts(pre_tokenizer)]
    for name, known in _PRE_TOKENIZERS.items():
        if steps == known:
            return name
    kinds = "+".join(str(step.get("type")) for step in steps)
    raise BadCheckpoint(str(folder), Reason("checkpoint.pre_tokenizer", kinds=kinds or "(none)"))


def _defaults(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step with what older files leave out, and without what changes no token."""
    filled = {"use_regex": True, **step} if step.get("type") == "ByteLevel" else dict(step)
    filled.pop("trim_offsets", None)
    return filled

"""A Hugging Face folder's tokenizer as GGUF metadata: the way back of `gguf_tokenizer`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_demo.checkpoints.gguf_read import Value
from llama_demo.checkpoints.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from llama_demo.errors import BadCheckpoint

_NAMED = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def vocabulary_fields(folder: Path, vocab_size: int) -> dict[str, Value]:
    """The `tokenizer.*` metadata for the model in `folder`, whose embedding has `vocab_size` rows.

    Raises `BadCheckpoint` for a tokenizer that is neither byte-level nor SentencePiece-like BPE, or whose
    pre-tokenizer has no name in GGUF.
    """
    document = _document(folder)
    model = document.get("model") or {}
    if model.get("type") != "BPE":
        raise BadCheckpoint(
            str(folder), f"its tokenizer is of the kind {model.get('type')}, and only BPE can be written"
        )
    numbers: dict[str, int] = dict(model["vocab"])
    added = {token["content"]: token for token in document.get("added_tokens") or []}
    numbers.update({text: int(token["id"]) for text, token in added.items()})
    if max(numbers.values(), default=-1) >= vocab_size:
        raise BadCheckpoint(str(folder), f"its tokenizer has more tokens than the model's {vocab_size}")
    by_number = {number: text for text, number in numbers.items()}
    tokens = [by_number.get(number, f"[PAD{number}]") for number in range(vocab_size)]
    merges = [_pair(merge) for merge in model["merges"]]
    sentencepiece = bool(model.get("byte_fallback"))
    fields: dict[str, Value] = {"tokenizer.ggml.model": "llama" if sentencepiece else "gpt2"}
    if sentencepiece:
        fields["tokenizer.ggml.add_space_prefix"] = _adds_space(document)
        fields["tokenizer.ggml.scores"] = list[Any](_scores(tokens, merges))
    else:
        fields["tokenizer.ggml.pre"] = _pre_name(folder, document.get("pre_tokenizer"))
        fields["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
    fields["tokenizer.ggml.tokens"] = list[Any](tokens)
    fields["tokenizer.ggml.token_type"] = [
        _kind(token, number in by_number, added, str(model.get("unk_token")), sentencepiece)
        for number, token in enumerate(tokens)
    ]
    return {**fields, **_config_fields(folder, document, numbers)}


def _config_fields(folder: Path, document: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, Value]:
    """What tokenizer_config.json and the chat template say."""
    config, fields = _config(folder), dict[str, Value]()
    for name, key in _NAMED.items():
        if (text := _text(config.get(name))) in numbers:
            fields[key] = numbers[text]
    fields["tokenizer.ggml.add_bos_token"] = _adds_bos(document, _text(config.get("bos_token")))
    template = folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    if isinstance(chat, str):
        fields["tokenizer.chat_template"] = chat
    return fields


def _document(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(str(path), "it is not readable as JSON") from error
    if not (folder / "tokenizer.model").is_file():
        raise BadCheckpoint(str(folder), "it has neither tokenizer.json nor tokenizer.model")
    from transformers import LlamaTokenizer

    return dict(json.loads(LlamaTokenizer.from_pretrained(str(folder)).backend_tokenizer.to_str()))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadCheckpoint(str(path), "it is not readable as JSON") from error


def _text(value: Any) -> str:
    return str(value.get("content") if isinstance(value, Mapping) else value)


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


def _adds_space(document: Mapping[str, Any]) -> bool:
    steps = [*_parts(document.get("normalizer")), *_parts(document.get("pre_tokenizer"))]
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
    steps = _parts(pre_tokenizer)
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and r"\p{N}{1,3}" in str(steps[0].get("pattern")):
        return "llama-bpe"
    raise BadCheckpoint(str(folder), f"its pre-tokenizer {kinds} has no name in GGUF that is known here")

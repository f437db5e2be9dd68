"""A GGUF file's tokenizer, written as the files that Hugging Face's libraries read.

The pre-tokenizer is the one that `tokenizer.ggml.pre` names, digits included: a near miss would give the model token
sequences that it never saw in training, without an error. So a name that is not known here is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from llama_demo.checkpoints.gguf_read import Metadata, read_container
from llama_demo.checkpoints.whole import replacing
from llama_demo.reasons import Reason

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""What a token is, in `tokenizer.ggml.token_type`."""

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r"})
_PLAIN = frozenset({"gpt-2", "gpt2", "default"})
_LLAMA3 = frozenset({"llama-bpe", "llama3", "llama-v3"})
_SPECIAL_IDS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
_END_IDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_SPACE = "▁"


def write_tokenizer(source: Path, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json, generation_config.json (the ids that end a text) and, where the
    file has one, chat_template.jinja.

    `tokenizer.json` comes last: where it is there, the others are. Raises `BadCheckpoint`, `DiskFull`.
    """
    container = read_container(source)
    write_described_tokenizer(Metadata(container.path, container.fields), folder)


def write_described_tokenizer(metadata: Metadata, folder: Path) -> None:
    """The same from metadata that need not be a file's."""
    tokens = metadata.texts("tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens):
        raise metadata.bad(Reason("checkpoint.token_twice"))
    kinds = metadata.numbers("tokenizer.ggml.token_type", len(tokens), NORMAL)
    model = metadata.text("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer, adds_bos = _byte_level(metadata, tokens)
    elif model == "llama":
        tokenizer, adds_bos = _sentencepiece(metadata, tokens, kinds), True
    else:
        raise metadata.bad(Reason("checkpoint.tokenizer_kind", kind=model))
    _add_special_tokens(tokenizer, tokens, kinds)
    special = _special_ids(metadata, len(tokens))
    adds_bos = metadata.flag("tokenizer.ggml.add_bos_token", adds_bos) and "bos_token" in special
    if adds_bos:
        bos = tokens[special["bos_token"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, special["bos_token"])]
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: tokens[number] for name, number in special.items()},
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.count("llama.context_length"),
    }
    ends = [metadata.token_id(name, len(tokens)) for name in _END_IDS]
    generation = {"bos_token_id": special.get("bos_token"), "eos_token_id": sorted({n for n in ends if n is not None})}
    template = metadata.text("tokenizer.chat_template", "")
    if template:
        _write(folder / "chat_template.jinja", template)
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False))
    _write(folder / "generation_config.json", json.dumps(generation, indent=2))
    _write(folder / "tokenizer.json", tokenizer.to_str())


def _write(path: Path, text: str) -> None:
    raw = text.encode("utf-8")
    with replacing(path, len(raw)) as file:
        file.write(raw)


def _special_ids(metadata: Metadata, vocabulary: int) -> dict[str, int]:
    ids = {name: metadata.token_id(key, vocabulary) for name, key in _SPECIAL_IDS.items()}
    return {name: number for name, number in ids.items() if number is not None}


def _byte_level(metadata: Metadata, tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether its family begins a text with the begin token unless told otherwise."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [_merge(metadata, vocabulary, line) for line in metadata.texts("tokenizer.ggml.merges")]
    pre = metadata.text("tokenizer.ggml.pre", "default")
    words: pre_tokenizers.PreTokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in _LLAMA3)
    if pre in _SINGLE_DIGITS:
        words = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    elif pre in _LLAMA3:
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated"), words])
    elif pre not in _PLAIN:
        raise metadata.bad(Reason("checkpoint.pre_tokenizer_unknown", kind=pre))
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=pre in _LLAMA3))
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, pre in _LLAMA3


def _merge(metadata: Metadata, vocabulary: dict[str, int], line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
        raise metadata.bad(Reason("checkpoint.merges", merge=repr(line[:40])))
    return left, right


def _sentencepiece(metadata: Metadata, tokens: Sequence[str], kinds: Sequence[float]) -> Tokenizer:
    scores = metadata.numbers("tokenizer.ggml.scores", len(tokens))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = _merges_by_score(tokens, kinds, scores)
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN), None)
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    pieces: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.flag("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(_SPACE))
        pieces.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(pieces)
    return tokenizer


def _merges_by_score(tokens: Sequence[str], kinds: Sequence[float], scores: Sequence[float]) -> list[tuple[str, str]]:
    """SentencePiece keeps no merges: it joins the pair whose whole has the best score, so every way to split a piece
    into two others is a merge, in the order of the pieces' scores."""
    numbers = {token: number for number, token in enumerate(tokens) if kinds[number] in (NORMAL, UNUSED)}
    merges = [
        (-scores[number], numbers[token[:cut]], numbers[token[cut:]], token[:cut], token[cut:])
        for token, number in numbers.items()
        for cut in range(1, len(token))
        if token[:cut] in numbers and token[cut:] in numbers
    ]
    return [(left, right) for _, _, _, left, right in sorted(merges)]


def _add_special_tokens(tokenizer: Tokenizer, tokens: Sequence[str], kinds: Sequence[float]) -> None:
    named = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token, kind in named if kind in (CONTROL, UNKNOWN)]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in named if kind == USER_DEFINED])

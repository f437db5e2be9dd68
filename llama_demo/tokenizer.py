"""A model's tokenizer: text to ids and back, with what visitors write kept apart from what the template writes.

It uses `tokenizers` alone, so that the page needs no torch, and knows no conversation.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

_CHAT_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_turn|>")
"""End tokens of chat turns; one ends a reply where the model's own template writes it."""

_BORDER = re.compile(r"<[|\uff5c][^<>]+[|\uff5c]>")
"""An added token that may begin or end a turn though it is not special, as fine-tunes often have it."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A byte in a vocabulary with byte fallback."""


class Tokenizer:
    """Made by `load`. Text is encoded as the model was trained to see it, without BOS or EOS of its own."""

    def __init__(self, document: str, config: Mapping[str, Any], chat_template: str | None) -> None:
        self.backend = FastTokenizer.from_str(document)
        self._plain = FastTokenizer.from_str(document)
        self._plain.encode_special_tokens = True
        self.chat_template = chat_template
        self.vocabulary_size: int = self.backend.get_vocab_size()
        added = self.backend.get_added_tokens_decoder()
        self.special_tokens = {token.content: number for number, token in added.items() if token.special}
        self.named_tokens = {
            name: text
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (text := _token(config, name))
        }
        self.bos_id = self._id("bos_token")
        self.eos_ids = self._end_ids(config)
        self.adds_bos = self.bos_id is not None and _adds_bos(config, self.backend, self.bos_id)
        """Whether the model was trained on texts that begin with the BOS."""
        self._special_names = {number: token for token, number in self.special_tokens.items()}
        self._spelling = _Spelling(json.loads(document).get("decoder"))
        self.strips_spaces = self._spelling.strips_spaces
        """So many spaces at the very beginning of a text belong to the encoding, and not to the text."""
        self._secrets = _Secrets(document, added)

    def add_special(self, token: str, file: Path) -> int:
        """The id of `token` in the tokenizer.json that is written to `file`, where it is added if it is not there."""
        backend = FastTokenizer.from_str(self.backend.to_str())
        backend.add_special_tokens([token])
        backend.save(str(file))
        number = backend.token_to_id(token)
        assert number is not None, "it was added"
        return number

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads tokenizer.json and, where they are there, tokenizer_config.json, generation_config.json and
        chat_template.jinja. Raises `BadCheckpoint`."""
        path = folder / "tokenizer.json"
        try:
            document = path.read_text(encoding="utf-8")
            config = {**_json(folder / "generation_config.json"), **_json(folder / "tokenizer_config.json")}
            return cls(document, config, _template(folder, config))
        except FileNotFoundError:
            raise BadCheckpoint(str(path), Reason("checkpoint.missing")) from None
        except Exception as error:  # noqa: BLE001 (the library raises plain Exception for a file it cannot read)
            raise BadCheckpoint(str(path), Reason("checkpoint.no_tokenizer", error=type(error).__name__)) from None

    def encode(self, text: str) -> list[int]:
        """The ids of plain text: a marker such as `<|im_start|>` in it is ordinary text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_text(self, text: str) -> list[int]:
        """The ids of a raw text for the model to read: after the BOS where the model was trained so, and never none."""
        ids = self.encode(text)
        starts = [number for number in (self.bos_id, *sorted(self.eos_ids)) if number is not None][:1]
        return [*starts, *ids] if self.adds_bos or not ids else ids

    def token_bytes(self, number: int) -> bytes:
        """What a token stands for, which may be a part of a character; nothing for a special or unknown token."""
        piece = None if number in self._special_names else self.backend.id_to_token(number)
        return b"" if piece is None else self._spelling.read(piece)

    def token_name(self, number: int) -> str:
        """A token as people read it: its text, `<0xE2>` for a byte that is a part of a character, or a special token's
        own name."""
        special = self._special_names.get(number)
        return _readable(self.token_bytes(number)) if special is None else special

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def guard(self, text: str) -> str:
        """A visitor's text as it may stand in a template: its markers are disguised until `encode_guarded`."""
        return self._secrets.guard(text)

    def reveal(self, rendered: str) -> str:
        """A rendered template as people read it: visitors' markers as they wrote them."""
        return self._secrets.reveal(rendered)

    def encode_guarded(self, rendered: str) -> list[int]:
        """The ids of a rendered template: its own markers become special ids, a visitor's stay text."""
        return self._secrets.encode(rendered)

    def _id(self, name: str) -> int | None:
        text = self.named_tokens.get(name)
        number: int | None = None if text is None else self.backend.token_to_id(text)
        return number

    def _end_ids(self, config: Mapping[str, Any]) -> frozenset[int]:
        given = config.get("eos_token_id")
        ids = {number for number in (given if isinstance(given, list) else [given]) if isinstance(number, int)}
        own = self._id("eos_token")
        template = self.chat_template or ""
        ends = (self.backend.token_to_id(end) for end in _CHAT_ENDS if end in template)
        return frozenset(ids | {number for number in (own, *ends) if number is not None})


class _Spelling:
    """How a vocabulary writes bytes: by `decoder`, as tokenizer.json has it."""

    def __init__(self, decoder: Mapping[str, Any] | None) -> None:
        steps = [] if decoder is None else decoder.get("decoders") or [decoder]
        kinds = {step.get("type") for step in steps}
        self._letters = _byte_letters() if "ByteLevel" in kinds else {}
        self._has_bytes = "ByteFallback" in kinds
        self._space = next(filter(None, map(_space, steps)), "")
        self.strips_spaces = max((_stripped(step) for step in steps), default=0)

    def read(self, piece: str) -> bytes:
        if self._letters:
            if all(letter in self._letters for letter in piece):
                return bytes(self._letters[letter] for letter in piece)
            return piece.encode()
        if self._has_bytes and (byte := _BYTE.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        return (piece.replace(self._space, " ") if self._space else piece).encode()


def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for the letters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain}
    others = (byte for byte in range(0x100) if byte not in plain)
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _space(step: Mapping[str, Any]) -> str:
    """The letter that the decoder's step turns into a space."""
    if step.get("type") == "Replace" and step.get("content") == " ":
        return str(step["pattern"].get("String") or "")
    return str(step.get("replacement") or "") if step.get("type") == "Metaspace" else ""


def _stripped(step: Mapping[str, Any]) -> int:
    """How many spaces the decoder's step takes from the beginning of a text."""
    if step.get("type") == "Strip" and step.get("content") == " ":
        return int(step.get("start") or 0)
    return int(step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")


def _readable(raw: bytes) -> str:
    parts, rest = [], raw
    while rest:
        try:
            parts.append(rest.decode())
            break
        except UnicodeDecodeError as error:
            parts += [rest[: error.start].decode(), *(f"<0x{byte:02X}>" for byte in rest[error.start : error.end])]
            rest = rest[error.end :]
    return "".join(parts)


def _adds_bos(config: Mapping[str, Any], backend: FastTokenizer, bos_id: int) -> bool:
    given = config.get("add_bos_token")
    return given if isinstance(given, bool) else bos_id in backend.encode("").ids


class _Secrets:
    """Encodes a rendered template whose markers go by names that nobody can guess.

    The tokenizer's special tokens, and others that look like the border of a turn, are renamed at random; the
    template's markers are given the new names just before encoding. One pass over the whole text gives the very ids
    that the plain tokenizer would, yet a visitor who writes a marker gets its letters.
    """

    def __init__(self, document: str, added: Mapping[int, AddedToken]) -> None:
        nonce = secrets.token_hex(16)
        markers = [token.content for token in added.values() if token.special or _BORDER.fullmatch(token.content)]
        self._template_names = {token: f"<{nonce}-t{index}>" for index, token in enumerate(markers)}
        self._visitor_names = {token: f"<{nonce}-v{index}>" for index, token in enumerate(markers)}
        self._visitor_tokens = {name: token for token, name in self._visitor_names.items()}
        self._markers = _pattern(self._template_names)
        self._disguised = _pattern(self._visitor_tokens)
        self._tokenizer, self._real_ids = self._renamed(document, added)

    def guard(self, text: str) -> str:
        return self._markers.sub(lambda found: self._visitor_names[found[0]], text)

    def reveal(self, rendered: str) -> str:
        return self._disguised.sub(lambda found: self._visitor_tokens[found[0]], rendered)

    def encode(self, rendered: str) -> list[int]:
        text = self.reveal(self._markers.sub(lambda found: self._template_names[found[0]], rendered))
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._real_ids.get(number, number) for number in ids]

    def _renamed(self, document: str, added: Mapping[int, AddedToken]) -> tuple[FastTokenizer, dict[int, int]]:
        """The tokenizer, and what it numbers otherwise: any added token that its model's own vocabulary lacks."""
        names, parsed = self._template_names, json.loads(document)
        parsed["added_tokens"] = [token for token in parsed.get("added_tokens") or [] if token["content"] not in names]
        parsed["post_processor"] = None
        tokenizer = FastTokenizer.from_str(json.dumps(parsed))
        tokenizer.add_special_tokens(
            [
                AddedToken(
                    names[token.content],
                    special=True,
                    normalized=False,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                )
                for token in added.values()
                if token.content in names
            ]
        )
        real_ids = {}
        for real_id, token in added.items():
            if (number := tokenizer.token_to_id(names.get(token.content, token.content))) is not None:
                real_ids[number] = real_id
        return tokenizer, real_ids


def _pattern(texts: Mapping[str, object]) -> re.Pattern[str]:
    """Finds any of `texts`, the longest first; nothing where there are none."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _token(config: Mapping[str, Any], name: str) -> str | None:
    """A token is written as its text, or as an object that has it as `content`."""
    value = config.get(name)
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    value = config.get("chat_template")
    if isinstance(value, list):
        value = next((entry.get("template") for entry in value if entry.get("name") == "default"), None)
    return value if isinstance(value, str) else None

"""A text inside the prompt that a classifier reads it in. Where it is too long the text is cut, never the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_demo.classify_errors import BadExample
from llama_demo.errors import InvalidParameter, PromptTooLong
from llama_demo.limits import Limits
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import check_text

PLACE = "{text}"
MOST_TEXTS = 50_000
MOST_PROMPT_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What the model reads; `cut_characters` of the text's end are not in it."""

    ids: tuple[int, ...]
    cut_characters: int


@dataclass(frozen=True, slots=True)
class Wrapping:
    """`prompt` with `{text}` in it, once. Raises `InvalidParameter`, `InvalidUnicode`."""

    prompt: str

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or self.prompt.count(PLACE) != 1:
            raise InvalidParameter("prompt", self.prompt, Reason("expected.prompt"))
        if len(self.prompt) > MOST_PROMPT_CHARACTERS:
            raise InvalidParameter(
                "prompt", self.prompt, Reason("expected.prompt_at_most", most=MOST_PROMPT_CHARACTERS)
            )
        check_text(self.prompt)

    def wrap(self, text: str) -> str:
        return self.prompt.replace(PLACE, text)

    def read(self, tokenizer: Tokenizer, text: str, room_tokens: int) -> Wrapped:
        """The ids of the wrapped text, encoded as one, with as much of the text as fits into `room_tokens`.

        Raises `PromptTooLong` where the prompt alone does not fit.
        """
        ids = tokenizer.encode_text(self.wrap(text))
        if len(ids) <= room_tokens:
            return Wrapped(tuple(ids), 0)
        kept, dropped = 0, len(text)
        ids = tokenizer.encode_text(self.wrap(""))
        if len(ids) > room_tokens:
            raise PromptTooLong(len(ids), room_tokens)
        while dropped - kept > 1:
            middle = (kept + dropped) // 2
            tried = tokenizer.encode_text(self.wrap(text[:middle]))
            if len(tried) <= room_tokens:
                kept, ids = middle, tried
            else:
                dropped = middle
        return Wrapped(tuple(ids), len(text) - kept)


def texts_from(value: object, limits: Limits) -> tuple[str, ...]:
    """Reads a list of texts, or one text. Raises `InvalidParameter`, `BadExample` naming the text, `InvalidUnicode`,
    `MessageTooLong`."""
    texts = [value] if isinstance(value, str) else value
    expected = Reason("expected.texts", most=MOST_TEXTS)
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InvalidParameter("texts", texts, expected)
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise InvalidParameter("texts", f"{len(texts)} of them", expected)
    return tuple(checked(text, number, limits) for number, text in enumerate(texts, 1))


def checked(text: object, number: int, limits: Limits) -> str:
    """`text`, the `number`th, if a classifier can read it. Raises as `texts_from`."""
    if not isinstance(text, str):
        raise BadExample(Reason("example.no_text"), number)
    if not text.strip():
        raise BadExample(Reason("example.empty"), number)
    check_text(text)
    limits.check_characters(len(text))
    return text

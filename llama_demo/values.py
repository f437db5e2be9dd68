"""Values that cross a boundary: frozen, checked when made, passed whole. They know no library and no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, get_args

from llama_demo.errors import EmptyMessage, InvalidHistory, InvalidParameter, InvalidUnicode
from llama_demo.reasons import Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: the model's end token or a stop string; `length`: `max_new_tokens` or the context; `cancelled`."""

SEED_LIMIT = 2**31
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 1_000_000),
    "temperature": (float, 0.0, 5.0),
    "top_p": (float, 0.01, 1.0),
    "top_k": (int, 0, 1_000_000),
    "min_p": (float, 0.0, 1.0),
    "repetition_penalty": (float, 0.1, 10.0),
    "presence_penalty": (float, -2.0, 2.0),
    "frequency_penalty": (float, -2.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn.

    `temperature` 0 is greedy; `top_k` 0 means no limit; `repetition_penalty` 1 means none (as in CTRL, Keskar et al.
    2019: it reads the prompt and what was written). `presence_penalty` is taken once from the logit of every token
    that was written already, `frequency_penalty` as often as it was; the prompt does not count. `seed` None is random.

    Raises `InvalidParameter` for a value out of range, NaN, infinite or of the wrong type.
    """

    max_new_tokens: int = 512
    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 50
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _BOUNDS.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), kind, low, high))
        if self.seed is not None:
            object.__setattr__(self, "seed", _number("seed", self.seed, int, 0, SEED_LIMIT - 1))

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


def bounds(name: str) -> tuple[float, float]:
    """The least and the largest value that `Sampling` takes for `name`, seed excepted."""
    return _BOUNDS[name][1:]


MAX_ALTERNATIVES = 8
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A text to continue, `n` times side by side; alternative `i` draws with the seed `(seed + i) % SEED_LIMIT`.

    `prompt` is raw text, encoded as plain text after the model's own start of text (empty text is that start alone);
    or token ids, which are taken exactly as they are; or a conversation, whose next reply is the continuation.
    `as_chat` sends a text as a user's message through the chat template. `trim` lets a text or ids that are too long
    for the context lose their beginning. With `named` each token comes with its name; `top` asks for so many
    alternatives of each, where another server gives them as it goes, and `echo` for its prompt as a part of the text.

    Raises `InvalidParameter`, `InvalidUnicode`.
    """

    prompt: str | tuple[int, ...] | tuple[Turn, ...]
    sampling: Sampling
    stops: tuple[str, ...] = ()
    n: int = 1
    as_chat: bool = False
    trim: bool = False
    named: bool = False
    top: int | None = None
    echo: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.prompt, str):
            check_text(self.prompt)
        else:
            if not self.turns:
                object.__setattr__(self, "prompt", token_ids("prompt", self.prompt, Reason("expected.text_or_ids")))
            if self.as_chat:
                raise InvalidParameter("as_chat", self.as_chat, Reason("expected.as_chat"))
        object.__setattr__(self, "stops", _stops(self.stops))
        object.__setattr__(self, "n", _number("n", self.n, int, 1, MAX_ALTERNATIVES))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation, where the prompt is one; else none."""
        if not isinstance(self.prompt, tuple):
            return ()
        turns = tuple(turn for turn in self.prompt if isinstance(turn, Turn))
        return turns if len(turns) == len(self.prompt) else ()


def token_ids(name: str, value: object, expected: Reason) -> tuple[int, ...]:
    """`value` as ids. Raises `InvalidParameter` where it is no sequence of whole numbers from 0."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidParameter(name, value, expected)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InvalidParameter(name, number, Reason("expected.whole_ids", expected=expected))
    return tuple(value)


def _stops(value: object) -> tuple[str, ...]:
    expected = Reason("expected.stops", most=MAX_STOPS, characters=MAX_STOP_CHARACTERS)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidParameter("stop", value, expected)
    if len(value) > MAX_STOPS:
        raise InvalidParameter("stop", f"{len(value)} texts", expected)
    for stop in value:
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise InvalidParameter("stop", stop, expected)
        check_text(stop)
    return tuple(value)


def _number(name: str, value: object, kind: type, low: float, high: float) -> float | int:
    whole = Reason("expected.whole_number", low=f"{low:g}", high=f"{high:.10g}")
    expected = whole if kind is int else Reason("expected.number", low=f"{low:g}", high=f"{high:.10g}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidParameter(name, value, expected)
    if (kind is int and value != int(value)) or not low <= value <= high:
        raise InvalidParameter(name, value, expected)
    return kind(value)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. Raises `InvalidHistory`, `InvalidUnicode`."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        _role(-1, self.role)
        check_text(self.content)


def check_text(text: str) -> None:
    """Raises `InvalidUnicode` where `text` holds half of a surrogate pair, which no tokenizer can take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidUnicode(error.start) from None


def turns_from(history: object, message: object | None = None, system_prompt: object = "") -> tuple[Turn, ...]:
    """Reads `history` (a list of {role, content}) and the new `message` as turns, the system prompt first.

    Raises `InvalidHistory` naming the entry, `EmptyMessage`, `InvalidUnicode`.
    """
    if not isinstance(history, Sequence) or isinstance(history, (str, bytes)):
        raise InvalidParameter("history", history, Reason("expected.history"))
    turns = [_turn(index, entry) for index, entry in enumerate(history)]
    if not isinstance(system_prompt, str):
        raise InvalidParameter("system_prompt", system_prompt, Reason("expected.text"))
    if system_prompt.strip():
        turns = [Turn("system", system_prompt), *(turn for turn in turns if turn.role != "system")]
    if message is not None:
        if not isinstance(message, str):
            raise InvalidParameter("message", message, Reason("expected.text"))
        if not message.strip():
            raise EmptyMessage()
        turns.append(Turn("user", message))
    return tuple(turns)


def _turn(index: int, entry: object) -> Turn:
    if not isinstance(entry, Mapping):
        raise InvalidHistory(index, Reason("history.no_turn"))
    content = entry.get("content")
    if not isinstance(content, str):
        raise InvalidHistory(index, Reason("history.content"))
    return Turn(_role(index, entry.get("role")), content)


def _role(index: int, role: object) -> Role:
    for known in get_args(Role):
        if role == known:
            return known  # type: ignore[no-any-return]
    raise InvalidHistory(index, Reason("history.role", role=repr(role), known=get_args(Role)))


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the model chose, with the natural logarithm of its probability."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a model thought of `n` given tokens, each seen with those before it (teacher forcing).

    logprobs      float32 [n], natural logarithm; NaN for the first, which nothing came before
    ranks         int32 [n], 1 for the likeliest; 0 for the first
    entropies     float32 [n], in nats, of the distribution the token was drawn from; NaN for the first
    top_ids       int32 [n, top_k], the likeliest alternatives, best first; -1 in the first row
    top_logprobs  float32 [n, top_k]; NaN in the first row
    """

    logprobs: NDArray[np.float32]
    ranks: NDArray[np.int32]
    entropies: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]


class ModelState(StrEnum):
    ABSENT = "absent"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


LoadStep = Literal["wait", "download", "convert", "load", "warm_up", "connect"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is. `place` counts from 1 while it waits for memory that others hold; bytes are None where the
    step has none to count."""

    step: LoadStep
    done_bytes: int | None = None
    total_bytes: int | None = None
    place: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ResidentStatus:
    """What the registry knows of one name: `bytes` is what it is counted for, `shares` the same by device, `leases` how
    many use it now. What is `pinned` stays in memory when nobody uses it."""

    state: ModelState
    device: str = ""
    bytes: int = 0
    leases: int = 0
    progress: LoadProgress | None = None
    error: BaseException | None = None
    pinned: bool = False
    shares: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speed:
    """`first_token_seconds` from the request's arrival at the engine; `tokens_per_second` after the first token."""

    first_token_seconds: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not started: `place` 1 is next, and 0 is at work with nothing to show yet; `seconds` is a guess, None where there
    is nothing to guess from."""

    place: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply so far: `text` is all of it. `finish` is None while it streams.

    `dropped_turns` of the oldest turns did not fit into `context_tokens` and were left out of the prompt.
    """

    text: str
    model: str
    prompt_tokens: int
    new_tokens: int
    context_tokens: int
    dropped_turns: int = 0
    finish: FinishReason | None = None
    speed: Speed | None = None
    seed: int | None = None
    prompt: str = ""


ChatUpdate = LoadProgress | Waiting | Reply


@dataclass(frozen=True, slots=True)
class Continuation:
    """One alternative so far. `logprobs` has a natural logarithm for each of `ids`; the last ids may not be in `text`:
    a stop string, or half a character, is left out. `finish` is None while it streams. `tokens`, where they were asked
    for, are those of `ids`, and after them the model's end token where one ended it. Another server's tokens have no
    ids: they are `counted`."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason | None
    seed: int
    tokens: tuple[ScoredToken, ...] = ()
    counted: int | None = None

    @property
    def new_tokens(self) -> int:
        return len(self.ids) if self.counted is None else self.counted


@dataclass(frozen=True, slots=True)
class Completion:
    """All alternatives so far. `prompt` is as the model saw it, without the first `trimmed_tokens` of what was asked.
    `speed` is of all alternatives together. `finished` once each of them has ended. A prompt whose ids another server
    keeps to itself has none here: it is `counted`, at the end."""

    model: str
    prompt: str
    prompt_ids: tuple[int, ...]
    trimmed_tokens: int
    context_tokens: int
    continuations: tuple[Continuation, ...]
    speed: Speed | None
    finished: bool
    counted: int | None = None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids) if self.counted is None else self.counted

    @property
    def new_tokens(self) -> int:
        return sum(one.new_tokens for one in self.continuations)


CompletionUpdate = LoadProgress | Waiting | Completion


@dataclass(frozen=True, slots=True)
class TokenAlternative:
    """A token that might have come, by its name for people (see `ScoredToken.token`)."""

    id: int
    token: str
    logprob: float
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """What the model thought of one token of a text, seen with those before it; None for the first, which nothing came
    before. Of a token that it has just drawn only the logprob is known.

    token    its name for people: its text, or bytes as `<0xE2>` where it is a part of a character
    text     what became whole with it: all joined are the text; empty inside a character and for special tokens
    logprob  natural logarithm; `rank` 1 is the likeliest; `entropy` in nats, of what the token was drawn from
    top      the likeliest alternatives, best first; the token itself may be among them
    raw      the bytes that it stands for, which may be a part of a character; none for special tokens
    """

    id: int
    token: str
    text: str
    logprob: float | None
    rank: int | None
    entropy: float | None
    top: tuple[TokenAlternative, ...]
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class ScoredText:
    """`perplexity` is exp of the mean negative logprob of all tokens but the first; None where there are none."""

    model: str
    tokens: tuple[ScoredToken, ...]
    perplexity: float | None

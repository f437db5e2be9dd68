"""What the tabs have in common: reading what the page asks, ending it, and the words for how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from llama_demo.errors import InvalidParameter
from llama_demo.leasing import Stopper
from llama_demo.messages import DEFAULT_LANGUAGE, Messages, size
from llama_demo.reasons import Reason
from llama_demo.values import LoadProgress, Sampling, Speed, Waiting
from llama_demo.visitors import Visitor

View = dict[str, Any]
"""What the page shows of an answer in progress: of constant size but for the text. It is in the visitor's words
but for what stays on the page, which words that anew where its language changes: `figures` and counts."""
_SAMPLING = frozenset(field.name for field in fields(Sampling))
_ID_CHARACTERS = 64


class Stoppers:
    """The stop switches of what is in progress, by the name that the page drew at random."""

    def __init__(self) -> None:
        self._stoppers: dict[str, Stopper] = {}

    @contextmanager
    def opened(self, identity: str, visitor: Visitor) -> Iterator[Stopper]:
        """The switch of one request of `visitor`, which has ended when the block ends."""
        stopper = self._stoppers[identity] = Stopper(visitor)
        try:
            yield stopper
        finally:
            if self._stoppers.get(identity) is stopper:
                del self._stoppers[identity]
            stopper.stop()

    def stop(self, identity: Any) -> None:
        """Ends the request called `identity`, if it is in progress. Nobody can know another visitor's identity."""
        if isinstance(identity, str) and (stopper := self._stoppers.get(identity)) is not None:
            stopper.stop()


def read_identity(request: Any) -> tuple[str, str]:
    """The request's name, which the page drew at random, and the visitor's language."""
    given = request if isinstance(request, Mapping) else {}
    identity, language = given.get("id"), given.get("language")
    return (
        identity[:_ID_CHARACTERS] if isinstance(identity, str) else "",
        language if isinstance(language, str) else DEFAULT_LANGUAGE,
    )


def read_object(request: Any) -> Mapping[str, Any]:
    """Raises `InvalidParameter`."""
    if not isinstance(request, Mapping):
        raise InvalidParameter("request", type(request).__name__, Reason("expected.object"))
    return request


def read_sampling(request: Mapping[str, Any]) -> Sampling:
    """Raises `InvalidParameter`."""
    sampling = request.get("sampling")
    if not isinstance(sampling, Mapping):
        raise InvalidParameter("sampling", type(sampling).__name__, Reason("expected.object"))
    for name in sampling:
        if name not in _SAMPLING:
            raise InvalidParameter("sampling", name, Reason("expected.one_of", choices=tuple(sorted(_SAMPLING))))
    return Sampling(**sampling)


def read_model(request: Mapping[str, Any], default_model: str) -> str:
    """Raises `InvalidParameter`."""
    model = request.get("model") or default_model
    if not isinstance(model, str):
        raise InvalidParameter("model", model, Reason("expected.text"))
    return model


def waiting_words(waiting: Waiting, words: Messages) -> str:
    """The place in the line, and about how long it takes."""
    if waiting.seconds is None:
        return words("chat.waiting", place=waiting.place)
    return words("chat.waiting_seconds", place=waiting.place, seconds=max(1, round(waiting.seconds)))


def loading_words(progress: LoadProgress, words: Messages) -> str:
    """The step of the load, its bytes where it counts them, and its seconds."""
    step = words(f"models.step_{progress.step}", place=progress.place or 1)
    seconds = round(progress.seconds)
    if progress.done_bytes is None:
        return words("models.progress", step=step, seconds=seconds)
    done = size(progress.done_bytes)
    if progress.total_bytes is None:
        return words("models.progress_bytes", step=step, done=done, seconds=seconds)
    return words("models.progress_total", step=step, done=done, total=size(progress.total_bytes), seconds=seconds)


def figures(speed: Speed | None, written: int) -> View:
    """Of what a model wrote: seconds to the first token, tokens a second where there were several, and how many."""
    return {
        "first": None if speed is None else round(speed.first_token_seconds, 3),
        "speed": None if speed is None or not speed.tokens_per_second else round(speed.tokens_per_second, 1),
        "written": written,
    }

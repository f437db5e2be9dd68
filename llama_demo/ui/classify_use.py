"""What the classification tab asks of a text, turned into verdicts that the page shows.

Plain values in and HTML out; no component, no model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llama_demo.classify.labels import Label, labels_from
from llama_demo.classify.results import ClassifyUpdate, ExplainUpdate, Explanation, Verdicts, Working
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.errors import EmptyMessage, InvalidParameter, LlamaDemoError
from llama_demo.messages import Messages, size
from llama_demo.observe import LOG
from llama_demo.reasons import Reason
from llama_demo.ui.asked import Stoppers, loading_words, read_identity, read_model, waiting_words
from llama_demo.ui.classify_html import explanation, failure, meter, note, results
from llama_demo.values import LoadProgress, Waiting
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.leasing import Stopper
    from llama_demo.runtime import Runtime

LABELS = ":labels"
"""The choice among the classifiers that is none of them, and no name of one: labels that the visitor writes."""
EXAMPLES = ("review", "messages")
FIELDS = (
    "classifier",
    "labels",
    "text",
    "each_line",
    "instruction",
    "normalise_length",
    "correct_prior",
    "threshold",
    "explain",
    "model",
)
"""What the page's controls hold, in this order."""
_COUNTED, _WEIGHED = ("read", "fit"), ("export", "archive", "upload")
"""Steps of which so many are done, and those that are so many bytes."""


class ClassifyUse:
    """The handlers, and the stop switches of what is in progress."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.stoppers = Stoppers()

    def classifiers(self, language: str, visitor: Visitor) -> list[tuple[str, str]]:
        """What there is to choose from: words for the page, and the name."""
        words = self._runtime.messages(language)
        names = self._runtime.classification.names((entry.name for entry in self._runtime.catalog.entries), visitor)
        return [(words("classify.zero_shot"), LABELS), *((name, name) for name in names)]

    def example(self, name: str, language: str) -> tuple[str, str, str, bool, str]:
        """What the first controls hold in a worked example: the values of the first five of `FIELDS`."""
        words = self._runtime.messages(language)
        labels, text = words(f"classify.example_{name}_labels"), words(f"classify.example_{name}_text")
        return LABELS, labels, text, "\n" in text, words(f"classify.example_{name}_instruction")

    def classify(self, asked: Any, given: Mapping[str, Any], visitor: Visitor) -> AsyncGenerator[str, None]:
        """How far it is, then the verdicts. An error is a view too: one sentence, no traceback."""
        words = self._runtime.messages(read_identity(asked)[1])
        return worded_views(lambda stopper: self._views(given, words, stopper), self.stoppers, asked, visitor, words)

    async def _views(self, given: Mapping[str, Any], words: Messages, stopper: Stopper) -> AsyncGenerator[str, None]:
        texts = read_texts(given.get("text"), each_line=given.get("each_line") is True)
        threshold, by = given.get("threshold") or 0.0, read_classifier(given)
        model = read_model(given, self._runtime.default_model) if isinstance(by, ZeroShot) else ""
        service, found = self._runtime.classification, ""
        options: dict[str, Any] = {"model": model, "abstain_below": threshold, "stopper": stopper}
        updates: AsyncGenerator[ClassifyUpdate | ExplainUpdate, None] = service.classify(texts, by, **options)
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Verdicts):
                    found = results(update, texts, self._runtime.catalog.title_of(update.model), threshold, words)
                    yield found
                elif not isinstance(update, Explanation):
                    yield progress_view(update, words)
        if not found:
            yield ended_early(stopper, words)
            return
        if len(texts) > 1 or given.get("explain") is False:
            return
        yield found + note(words("classify.explaining"))
        updates = service.explain(texts[0], by, **options)
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Explanation):
                    yield found + explanation(update, words)
                    return
        yield found + ended_early(stopper, words)


def read_texts(text: Any, *, each_line: bool) -> list[str]:
    """The one text, or every line that is not blank. Raises `EmptyMessage`, `InvalidParameter`."""
    if not isinstance(text, str):
        raise InvalidParameter("text", text, Reason("expected.text"))
    texts = [line.strip() for line in text.splitlines() if line.strip()] if each_line else [text]
    if not texts or not texts[0].strip():
        raise EmptyMessage
    return texts


def read_classifier(given: Mapping[str, Any]) -> str | ZeroShot:
    """A head's name, or labels and how they are asked for. Raises `InvalidParameter`, `BadLabels`, `InvalidUnicode`."""
    if (name := given.get("classifier")) != LABELS:
        return str(name)
    return ZeroShot(
        read_labels(given.get("labels")),
        given.get("instruction") or "",
        given.get("normalise_length") is not False,
        given.get("correct_prior") is not False,
    )


def read_labels(text: Any) -> tuple[Label, ...]:
    """One a line, with a description after a colon and a blank; or all of them on one line, between commas.

    Raises `InvalidParameter`, and as `labels_from`.
    """
    if not isinstance(text, str):
        raise InvalidParameter("labels", text, Reason("expected.text"))
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and "," in lines[0] and ": " not in lines[0]:
        return labels_from(lines[0].split(","))
    pairs = [line.partition(": ") for line in lines]
    return labels_from([{"name": name, "description": description} for name, _, description in pairs])


def progress_view(update: LoadProgress | Waiting | Working, words: Messages) -> str:
    """How far it is, in words, and drawn where it is known."""
    if isinstance(update, LoadProgress):
        return note(loading_words(update, words))
    if isinstance(update, Waiting):
        return note(waiting_words(update, words))
    if update.step in _COUNTED:
        text = words(f"classify.working_{update.step}", done=update.done, total=update.total)
    elif update.step in _WEIGHED:
        text = words(f"classify.working_{update.step}", done=size(update.done), total=size(update.total))
    else:
        text = words(f"models.step_{update.step}", place=1)
    return note(text) + meter(update.done, update.total)


def ended_early(stopper: Stopper, words: Messages) -> str:
    """That somebody ended it. Raises why, where that was the server."""
    stopper.check()
    return note(words("classify.stopped"))


async def worded_views(
    make: Callable[[Stopper], AsyncGenerator[str, None]],
    stoppers: Stoppers,
    asked: Any,
    visitor: Visitor,
    words: Messages,
) -> AsyncGenerator[str, None]:
    """The views that `make` gives of one request, which one of `stoppers` ends; what goes wrong is the last of them."""
    with stoppers.opened(read_identity(asked)[0], visitor) as stopper:
        try:
            async with aclosing(make(stopper)) as views:
                async for view in views:
                    yield view
        except Exception as error:
            yield worded_failure(error, words)


def worded_failure(error: Exception, words: Messages) -> str:
    """The error's sentence; what we did not expect goes into the log."""
    if not isinstance(error, LlamaDemoError):
        LOG.exception("the classification tab's request failed")
    return failure(words.error(error))

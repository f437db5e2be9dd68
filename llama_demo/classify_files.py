"""A file of texts in, the same with labels and scores out: what is done with one of its rows, and how good it all was.

It knows no command line and no page, and leaves the rest of a file to `text_files`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llama_demo.classify.head import ProblemType
from llama_demo.classify.labelled import label_of
from llama_demo.classify.report import Report, Tally
from llama_demo.classify.results import Verdict, Verdicts
from llama_demo.classify.service import Classification
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.errors import EmptyMessage, LlamaDemoError
from llama_demo.leasing import Stopper, result_of
from llama_demo.table_output import ERROR
from llama_demo.tables import Table, Value, open_table, text_of
from llama_demo.text_files import OWN_ERRORS, TextTask, settings_said
from llama_demo.visitors import Visitor

TOGETHER = 128
"""So many texts are read in one call: far cheaper than one by one."""
WINDOW = 2 * TOGETHER
"""So many rows are worked on at once: while some are read, the next ones gather."""
LABEL = "label"
"""A column of the input that says what is right."""
_SCORE = "score "
_DIGITS = 6
"""Of a score: an engine's own rounding is in the fifth."""

Classify = Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]


@dataclass(frozen=True, slots=True)
class By:
    """Who decides: a trained head's name, or labels; and below which probability nobody does."""

    by: str | ZeroShot
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Classifying:
    """What is done with a file's rows by a classifier, and how good it was."""

    task: TextTask
    problem_type: ProblemType

    def report(self, table: Table, column: str, result: Path) -> Report | None:
        """How good the `result` that was made of `table` is; None where the table has no column `label`. The likeliest
        label of each text is judged, whatever the threshold.

        Raises `BadLabels` where it has none of the classifier's labels, or the classifier does not give each text one.
        """
        if LABEL not in table.columns:
            return None
        scores = [name for name in self.task.made if name.startswith(_SCORE)]
        tally = Tally([name.removeprefix(_SCORE) for name in scores], self.problem_type)
        pairs = zip(table.rows(), open_table(result).rows(), strict=False)
        while group := list(islice(pairs, TOGETHER)):
            judged = [(given, row) for given, row in group if not row.values[ERROR]]
            tally.add(
                [text_of(table, given, column) for given, _ in judged],
                [label_of(given.values.get(LABEL)) for given, _ in judged],
                [{name.removeprefix(_SCORE): float(row.values[name]) for name in scores} for _, row in judged],
            )
        return tally.report()


def classifying(service: Classification, model: str, how: By, visitor: Visitor) -> Classifying:
    """The label of each row's text, a score for each label, and how many characters did not fit the context. `model` is
    what reads for labels; a head reads with its own. Raises `UnknownClassifier`, `UntrainedHead`, `BadHead`."""
    problem_type: ProblemType = "single_label_classification"
    settings: dict[str, object] = {"threshold": how.threshold} if how.threshold else {}
    if isinstance(how.by, ZeroShot):
        labels = tuple(label.name for label in how.by.labels)
        fixed = {"model": model, "settings": settings_said(settings | _chosen(how.by))}
    else:
        head = service.find(how.by, visitor)
        labels, problem_type, settings = tuple(head.labels), head.problem_type, settings | {"head": head.digest}
        fixed = {"classifier": how.by, "model": head.backbone.name, "settings": settings_said(settings)}
    together = _Together(lambda texts: classify(service, texts, model, how, visitor))

    async def of(text: str) -> Mapping[str, Value]:
        if not text.strip():
            raise EmptyMessage
        verdict = await together.of(text)
        scores = {f"{_SCORE}{label}": round(verdict.scores[label], _DIGITS) for label in labels}
        return {"predicted": said(verdict), **scores, "cut_characters": verdict.cut_characters}

    made = ("predicted", *(f"{_SCORE}{label}" for label in labels), "cut_characters")
    return Classifying(TextTask(fixed, made, of), problem_type)


def _chosen(asked: ZeroShot) -> dict[str, object]:
    """What is asked for beside the labels' names, as far as it is not what it is for everybody."""
    usual = ZeroShot(asked.labels)
    names = ("instruction", "normalise_length", "correct_prior")
    chosen = {name: getattr(asked, name) for name in names if getattr(asked, name) != getattr(usual, name)}
    described = {label.name: label.description for label in asked.labels if label.description}
    return chosen | ({"descriptions": described} if described else {})


def said(verdict: Verdict) -> str:
    """The label, or the several where a text may have some; empty below the threshold."""
    return verdict.label if verdict.label is not None else ", ".join(verdict.labels)


async def classify(
    service: Classification, texts: Sequence[str], model: str, how: By, visitor: Visitor
) -> Sequence[Verdict]:
    """Raises as `Classification.classify`."""
    reads = model if isinstance(how.by, ZeroShot) else ""
    updates = service.classify(texts, how.by, model=reads, abstain_below=how.threshold, stopper=Stopper(visitor))
    return (await result_of(updates, Verdicts)).verdicts


@dataclass(slots=True)
class _Asked:
    text: str
    answer: Verdict | LlamaDemoError | None = None


class _Together:
    """Texts that wait at the same time go into one call. One that fails on its own costs no other its answer."""

    def __init__(self, call: Classify) -> None:
        self._call = call
        self._waiting: list[_Asked] = []
        self._turn = asyncio.Lock()

    async def of(self, text: str) -> Verdict:
        asked = _Asked(text)
        self._waiting.append(asked)
        async with self._turn:
            if asked.answer is None:
                group, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                await self._answer(group)
        if isinstance(asked.answer, Verdict):
            return asked.answer
        raise asked.answer or LlamaDemoError

    async def _answer(self, group: Sequence[_Asked]) -> None:
        try:
            answers: Sequence[Verdict | LlamaDemoError] = await self._call([asked.text for asked in group])
        except LlamaDemoError as error:
            if isinstance(error, OWN_ERRORS) and len(group) > 1:
                for asked in group:
                    await self._answer([asked])
                return
            answers = [error] * len(group)
        for asked, answer in zip(group, answers, strict=True):
            asked.answer = answer

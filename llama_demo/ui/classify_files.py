"""What the classification tab does with a file: the classifier that is chosen in the tab, and how good it was.

Plain values in and HTML out; no component, no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.classify_files import WINDOW, By, Classifying, classifying
from llama_demo.errors import LlamaDemoError
from llama_demo.messages import Messages, shortened
from llama_demo.tables import Table
from llama_demo.ui.asked import read_identity, read_model
from llama_demo.ui.classify_html import note, percent
from llama_demo.ui.classify_report import report_html
from llama_demo.ui.classify_use import LABELS, read_classifier, worded_failure
from llama_demo.ui.file_runs import Plan
from llama_demo.visitors import Visitor

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

_LABELS_CHARACTERS = 200


class ClassifyFiles:
    """The handlers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def chosen(self, asked: Any, given: Mapping[str, Any]) -> str:
        """What decides, or why nothing does: `given` is what the tab's controls hold, by `classify_use.FIELDS`."""
        words = self._runtime.messages(read_identity(asked)[1])
        if given.get("classifier") == LABELS and not str(given.get("labels") or "").strip():
            return note(words("classify.files_nothing"))
        try:
            how = _read(given)
        except Exception as error:
            return worded_failure(error, words)
        if isinstance(how.by, ZeroShot):
            labels = shortened(", ".join(label.name for label in how.by.labels), _LABELS_CHARACTERS)
            said = words("classify.files_labels", labels=labels)
        else:
            said = words("classify.files_head", name=how.by)
        below = words("classify.files_threshold", threshold=percent(how.threshold)) if how.threshold else ""
        return note(" ".join(filter(None, (said, below))))

    def plan(self, values: Sequence[Any], visitor: Visitor) -> Plan:
        """What is done with each row of a visitor's file: `values` are what the tab's controls hold, and the model.

        Raises `InvalidParameter`, `BadLabels`, `InvalidUnicode`, and as `Classification.find`.
        """
        given, model = values
        how = _read(given)
        chosen = read_model({"model": model}, self._runtime.default_model)
        work = classifying(self._runtime.classification, chosen, how, visitor)

        def report(table: Table, column: str, result: Path, words: Messages) -> str:
            return _report(work, table, column, result, words)

        return Plan(work.task, WINDOW, report)


def _read(given: Mapping[str, Any]) -> By:
    return By(read_classifier(given), given.get("threshold") or 0.0)


def _report(work: Classifying, table: Table, column: str, result: Path, words: Messages) -> str:
    """As after a training, where the file has labels."""
    try:
        found = work.report(table, column, result)
    except LlamaDemoError as error:
        return worded_failure(error, words)
    if found is None:
        return ""
    public = found.public()
    said = words("classify.files_report", count=sum(found.counts))
    unknown = ", ".join(found.unknown_labels) or "-"
    left = words("classify.files_left_out", count=found.left_out, labels=unknown) if found.left_out else ""
    return note(f"{said} {left}".strip()) + report_html(public, public["most_confidently_wrong"], words)

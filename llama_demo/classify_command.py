"""The command `classify`: texts from an argument, a pipe or a file, with a label and the scores of each."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from llama_demo.classify.labels import labels_from
from llama_demo.classify.report import Report
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.classify_files import WINDOW, By, classify, classifying, said
from llama_demo.errors import InvalidSetting
from llama_demo.file_command import OWNER, given_text, number, quiet_runtime, work_through
from llama_demo.messages import Messages
from llama_demo.reasons import Reason
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.tables import open_table


def run_classify(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    """Classifies a text, every line of a pipe, or every row of a file. Returns the exit status."""
    how, text = _how(parsed), given_text(parsed)
    with quiet_runtime(settings) as runtime:
        if parsed.input is not None:
            return _file(parsed, runtime, how, words)
        texts = text.splitlines() if parsed.text is None else [text]
        found = asyncio.run(classify(runtime.classification, texts, runtime.default_model, how, OWNER))
    if parsed.json:
        print(json.dumps([verdict.public() for verdict in found], indent=2, ensure_ascii=False))
        return 0
    for verdict in found:
        scores = "  ".join(f"{label} {score:.4f}" for label, score in verdict.scores.items())
        print(f"{said(verdict) or '-'}\t{scores}")
    return 0


def _how(parsed: argparse.Namespace) -> By:
    """Raises `InvalidSetting`, `BadLabels`, `InvalidParameter`."""
    if (parsed.labels is None) == (parsed.classifier is None):
        raise InvalidSetting("--labels", parsed.labels or "missing", Reason("expected.labels_or_classifier"))
    if parsed.classifier is not None:
        if parsed.instruction:
            raise InvalidSetting("--instruction", parsed.instruction, Reason("expected.belongs", to="--labels"))
        return By(parsed.classifier, number(parsed.threshold))
    labels = labels_from([name.strip() for name in parsed.labels.split(",")])
    return By(ZeroShot(labels, parsed.instruction or ""), number(parsed.threshold))


def _file(parsed: argparse.Namespace, runtime: Runtime, how: By, words: Messages) -> int:
    work = classifying(runtime.classification, runtime.default_model, how, OWNER)
    found: list[Report] = []

    def finished() -> dict[str, Any]:
        report = work.report(open_table(parsed.input), parsed.column, parsed.output)
        found.extend([report] if report else [])
        return {"report": report.public()} if report else {}

    status = work_through(parsed, work.task, words, WINDOW, finished)
    for report in found if not parsed.json else ():
        low, high = report.accuracy_interval
        print(
            words(
                "cli.classify_report",
                count=sum(report.counts),
                accuracy=f"{report.accuracy:.3f}",
                low=f"{low:.3f}",
                high=f"{high:.3f}",
                macro_f1=f"{report.macro_f1:.3f}",
                majority=f"{report.majority:.3f}",
                left_out=report.left_out,
            )
        )
    return status

"""The report on a file's labels, from a result that was written before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from llama_demo.classify.report import Report
from llama_demo.classify_files import Classifying
from llama_demo.table_output import Output
from llama_demo.tables import Value, open_table
from llama_demo.text_files import TextTask


def report(folder: Path, labels: list[object], scores: Mapping[str, float], **more: object) -> Report:
    """Of texts with these `labels`, and what `more` columns hold, each of which got these `scores`."""
    source, result = folder / "in.jsonl", folder / "out.jsonl"
    rows = [{"text": f"text {number}", "label": label, **more} for number, label in enumerate(labels)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values: dict[str, Value] = {f"score {label}": share for label, share in scores.items()}

    async def of(_: str) -> Mapping[str, Value]:
        return values

    task, table = TextTask({}, ("predicted", *values, "cut_characters"), of), open_table(source)
    with Output(result, table, fixed=task.fixed, made=task.made) as output:
        for row in list(output.remaining):
            output.append(row, values)
    made = Classifying(task, "single_label_classification").report(table, "text", result)
    assert made is not None
    return made


def test_labels_are_read_as_for_a_training(tmp_path: Path) -> None:
    made = report(tmp_path, [0, 1, " 0", "1 ", 0, None, "", True, 1.5], {"0": 0.2, "1": 0.8})
    assert (made.counts, made.accuracy, made.left_out, made.unknown_labels) == ((3, 2), 0.4, 4, ())


def test_a_column_of_the_input_that_is_called_like_a_score_is_none(tmp_path: Path) -> None:
    for human in ("n/a", 4):
        made = report(tmp_path, ["a", "b"], {"a": 0.8, "b": 0.2}, **{"score human": human})
        assert (made.labels, made.accuracy) == (("a", "b"), 0.5)
        (tmp_path / "out.jsonl").unlink()

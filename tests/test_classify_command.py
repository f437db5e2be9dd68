"""The command `classify`, as people run it: a text, a pipe, and files that are ended midway."""

from __future__ import annotations

import asyncio
import io
import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_demo import cli
from llama_demo.checkpoints import gguf
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from tests.text_file_runs import rows_of, run, write_prompts

Run = Callable[..., tuple[int, str, str]]
LABELS = ("--labels", "sea,land,sky")
TEXTS = ("the harbour and the boats", "bread from the baker")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(tiny_folder: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `classify` on the tiny model, with `piped` on its stdin; gives its status, stdout and stderr."""

    def run_command(*arguments: str | Path, piped: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        options = ("--model", str(tiny_folder), "--cache-dir", str(cache), "--reproducible")
        return cli.main(["classify", *map(str, arguments), *options]), *capsys.readouterr()

    return run_command


def test_a_text_and_every_line_of_a_pipe_get_a_label_and_all_scores(command: Run) -> None:
    status, out, err = command(*LABELS, "--json", piped="\n".join(TEXTS).encode())
    found = json.loads(out)
    assert (status, err, len(found)) == (0, "", 2)
    for verdict in found:
        assert list(verdict["scores"]) == ["sea", "land", "sky"]
        assert sum(verdict["scores"].values()) == pytest.approx(1.0, abs=1e-5)
        assert verdict["label"] == max(verdict["scores"], key=verdict["scores"].get)
    _, out, _ = command(TEXTS[1], *LABELS)
    label, shown = out.rstrip("\n").split("\t")
    assert label == found[1]["label"]
    assert shown.split()[::2] == ["sea", "land", "sky"]
    assert command(TEXTS[1], *LABELS, "--threshold", "1")[1].startswith("-\t")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text"], "--labels is missing"),
        (["text", "--labels", "a,b", "--classifier", "c"], "--labels is a,b"),
        (["text", "--classifier", "c", "--instruction", "i"], "--instruction is i"),
        (["text", "--labels", "a"], "there must be 2 to 200"),
        (["text", "--labels", "a,a"], "a is there twice"),
        (["text", "--labels", "a,b", "--threshold", "2"], "threshold is 2"),
        (["text", "--classifier", "none"], "no classifier named none"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr_and_status_2(arguments: list[str], words: str, command: Run) -> None:
    status, out, err = command(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.slow
def test_a_file_gets_its_labels_and_where_it_has_some_a_report_of_how_good_they_are(
    command: Run, cache: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    examples = [
        {"text": f"{one} {number}", "label": label}
        for number in range(8)
        for one, label in (("the harbour and the tide", "=sea"), ("the baker and the bread", "land"))
    ]

    async def train(runtime: Runtime) -> None:
        async for _ in runtime.classification.train(examples, "places", model=runtime.default_model):
            pass

    settings = Settings(model=str(tiny_folder), cache_dir=cache, reproducible=True, memory_gb=4.0)
    with Runtime(settings) as runtime:
        asyncio.run(train(runtime))
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [*examples, {"text": "", "label": "land"}, {"text": "the sky", "label": "sky"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ("--classifier", "places", "--input", source, "--output", target)
    status, out, err = command(*arguments)
    assert status == 0, err
    made = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in made] == [line["text"] for line in lines]
    assert {row["classifier"] for row in made} == {"places"}
    assert [bool(row["error"]) for row in made] == [False] * 16 + [True, False]
    right = sum(row["predicted"] == row["label"] for row in made[:16])
    assert all(row["score =sea"] + row["score land"] == pytest.approx(1.0, abs=1e-5) for row in made[:16])
    assert f"16 rows have a label: accuracy {right / 16:.3f}" in out
    report = json.loads(command(*arguments, "--json")[1])["report"]
    assert (report["accuracy"], report["unknown_labels"], report["left_out"]) == (right / 16, ["sky"], 1)
    assert sum(map(sum, report["confusion"])) == 16


def test_texts_in_a_file_are_read_together_and_get_what_they_would_get_alone(command: Run, tmp_path: Path) -> None:
    source, target = write_prompts(tmp_path / "in.csv", 80, column="text"), tmp_path / "out.csv"
    assert command(*LABELS, "--input", source, "--output", target)[0] == 0
    rows = rows_of(target)
    assert [row["id"] for row in rows] == [str(number) for number in range(80)]
    alone = json.loads(command(rows[33]["text"], *LABELS, "--json")[1])[0]
    assert rows[33]["predicted"] == alone["label"]
    for label, score in alone["scores"].items():
        assert float(rows[33][f"score {label}"]) == pytest.approx(score, abs=1e-4)


def test_other_labels_or_another_threshold_do_not_go_on_with_a_file(command: Run, tmp_path: Path) -> None:
    source, target = write_prompts(tmp_path / "in.csv", 3, column="text"), tmp_path / "out.csv"
    files = ("--input", source, "--output", target)
    assert command(*LABELS, *files)[0] == 0
    whole = target.read_bytes()
    for changed, words in (
        (("--labels", "sea,land"), "it has a column score sky"),
        (("--labels", "sea,land,air"), "it has no column score air"),
        ((*LABELS, "--threshold", "0.4"), 'settings -, now {"threshold": 0.4}'),
        ((*LABELS, "--instruction", "Sort it."), 'now {"instruction": "Sort it."}'),
    ):
        status, _, err = command(*changed, *files)
        assert (status, err.count("\n")) == (1, 1)
        assert words in err
        assert target.read_bytes() == whole
    assert command(*LABELS, *files)[0] == 0


@pytest.mark.slow
def test_twenty_thousand_texts_killed_midway_are_all_there_once(tiny_folder: Path, tmp_path: Path) -> None:
    rows, model = 20_000, tmp_path / "tiny.gguf"
    gguf.write_gguf(tiny_folder, model, to="q8_0")
    source, target = write_prompts(tmp_path / "in.csv", rows, column="text"), tmp_path / "out.csv"
    asked = (*LABELS, "--instruction", "{text} is about the")
    arguments = ("classify", *asked, "--input", source, "--output", target, "--model", model, "--memory-gb", "3")
    at = random.randrange(5_000, 15_000)
    assert run(*arguments, ended_at=at).status == -signal.SIGKILL
    assert len(rows_of(target)) == at
    finished = run(*arguments)
    assert finished.status == 0, finished.err
    assert [row["id"] for row in rows_of(target)] == [str(number) for number in range(rows)], f"killed at row {at}"
    assert all(row["predicted"] and not row["error"] for row in rows_of(target))

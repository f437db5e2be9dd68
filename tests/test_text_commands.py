"""The commands `generate` and `score`, as people run them: in a pipe, and on files that are ended midway."""

from __future__ import annotations

import asyncio
import io
import json
import math
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_demo import cli
from llama_demo.checkpoints import gguf
from llama_demo.errors import MissingColumn
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Completion, CompletionRequest, Sampling
from tests.text_file_runs import rows_of, run, write_prompts

PROMPT = "The harbour lies"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Runs a command on the tiny model, with `piped` on its stdin; gives its status, stdout and stderr."""

    def run_command(*arguments: str | Path, piped: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        status = cli.main([*map(str, arguments), "--model", str(tiny_folder), "--cache-dir", str(tmp_path)])
        return status, *capsys.readouterr()

    return run_command


@pytest.fixture
def greedy(tiny_folder: Path, tmp_path: Path) -> str:
    """What the service itself goes on with after `PROMPT`, 8 tokens at temperature 0."""
    request = CompletionRequest(PROMPT, Sampling(max_new_tokens=8, temperature=0.0))

    async def read(runtime: Runtime) -> object:
        return [made async for made in runtime.generation.complete(request, model=runtime.default_model)][-1]

    with Runtime(Settings(model=str(tiny_folder), cache_dir=tmp_path, memory_gb=4.0)) as runtime:
        last = asyncio.run(read(runtime))
    assert isinstance(last, Completion)
    return last.continuations[0].text


GREEDY = ("--temperature", "0", "--max-new-tokens", "8")


def test_a_text_goes_on_from_an_argument_or_a_pipe_with_nothing_else_on_stdout_or_stderr(
    command: Run, greedy: str
) -> None:
    assert command("generate", PROMPT, *GREEDY) == (0, f"{greedy}\n", "")
    assert command("generate", *GREEDY, piped=f"{PROMPT}\n".encode()) == (0, f"{greedy}\n", "")


def test_the_commands_own_length_is_not_the_setting_of_that_name(
    command: Run, greedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_DEMO_MAX_NEW_TOKENS", "2")
    status, out, _ = command("generate", PROMPT, *GREEDY, "--json")
    made = json.loads(out)["continuations"]
    assert (status, [one["text"] for one in made], made[0]["tokens"]) == (0, [greedy], 8)


def test_alternatives_have_a_seed_each_and_stop_strings_end_them(command: Run) -> None:
    options = (
        "--n",
        "3",
        "--seed",
        "7",
        "--max-new-tokens",
        "20",
        "--temperature",
        "1",
        "--stop",
        "e",
        "--stop",
        "\\n",
    )
    status, out, _ = command("generate", PROMPT, *options, "--json")
    made = json.loads(out)["continuations"]
    assert (status, [one["seed"] for one in made]) == (0, [7, 8, 9])
    assert not any("e" in one["text"] or "\n" in one["text"] for one in made)
    plain = command("generate", PROMPT, *options)[1]
    assert plain == "".join(f"--- {i} (seed {one['seed']})\n{one['text']}\n" for i, one in enumerate(made, start=1))


def test_score_prints_a_line_a_token_and_the_perplexity(command: Run) -> None:
    status, out, err = command("score", PROMPT)
    *rows, last = out.splitlines()
    logprobs = [float(row.split()[-3]) for row in rows[2:]]
    assert (status, err, rows[0].split()) == (0, "", ["token", "logprob", "rank", "entropy"])
    assert "".join(json.loads(row[: row.rindex('"') + 1]) for row in rows[1:]) == PROMPT
    assert float(last.split()[1]) == pytest.approx(math.exp(-sum(logprobs) / len(logprobs)), rel=1e-3)
    tokens = json.loads(command("score", PROMPT, "--json", "--top-k", "2")[1])["tokens"]
    assert [len(token["top"]) for token in tokens] == [0] + [2] * (len(rows) - 2)


@pytest.mark.parametrize(
    ("arguments", "piped", "status", "words"),
    [
        (["generate", "A", "--input", "x.csv"], b"", 2, "--input is x.csv, but it must be left out"),
        (["generate", "--input", "x.csv"], b"", 2, "--output is missing"),
        (["score", "A", "--output", "x.csv"], b"", 2, "--output is x.csv, but it must be left out"),
        (["generate", "A", "--temperature", "warm"], b"", 2, "temperature is warm"),
        (["generate", "A", "--n", "9"], b"", 2, "n is 9"),
        (["score", "A", "--top-k", "many"], b"", 2, "top_k is many"),
        (["generate"], b"one\ntw\xff", 1, "byte 7, in line 2"),
        (["score", "--input", "no.csv", "--output", "o.csv"], b"", 1, "no.csv cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(
    arguments: list[str], piped: bytes, status: int, words: str, command: Run
) -> None:
    ended, out, err = command(*arguments, piped=piped)
    assert (ended, out, err.count("\n")) == (status, "", 1)
    assert words in err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_that_fails_carries_its_error_and_the_others_their_completions(
    suffix: str, command: Run, greedy: str, tmp_path: Path
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    texts = [PROMPT, "=1+1" * 600, "", PROMPT]
    if suffix == ".csv":
        source.write_text("=id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    else:
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    status, out, err = command("generate", "--input", source, "--output", target, "--column", "text", *GREEDY)
    assert (status, out) == (0, f"4 rows in {target}, 1 of them with an error.\n")
    assert "4 of 4 rows, 1 with an error" in err
    text = target.read_text(encoding="utf-8")
    made = rows_of(target) if suffix == ".csv" else [json.loads(line) for line in text.splitlines()]
    assert [bool(row["error"]) for row in made] == [False, True, False, False]
    assert "tokens, and the model has room for" in made[1]["error"]
    assert made[0]["completion"] == made[3]["completion"] == greedy
    assert not made[1]["completion"]
    assert {row["model"] for row in made} == {"tiny-llama"}
    if suffix == ".csv":
        assert text.startswith('"\'=id"')
        assert made[1]["text"].startswith("'=1+1")


def test_a_file_of_texts_gets_their_perplexities(command: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"text\n{PROMPT}\nA\n", encoding="utf-8")
    assert command("score", "--input", source, "--output", tmp_path / "out.csv")[0] == 0
    first = rows_of(tmp_path / "out.csv")[0]
    shown = command("score", PROMPT)[1].splitlines()
    assert float(first["perplexity"]) == pytest.approx(float(shown[-1].split()[1]), rel=1e-3)
    assert int(first["tokens"]) == len(shown) - 2


def test_other_settings_do_not_go_on_with_a_file_and_are_named(command: Run, tmp_path: Path) -> None:
    source, target = write_prompts(tmp_path / "in.csv", 2), tmp_path / "out.csv"
    files = ("generate", "--input", source, "--output", target)
    assert command(*files, *GREEDY)[0] == 0
    whole = target.read_bytes()
    status, out, err = command(*files, "--temperature", "0.5", "--max-new-tokens", "8", "--stop", "END")
    assert (status, out, err.count("\n")) == (1, "", 1)
    there, now = (
        '{"max_new_tokens": 8, "temperature": 0.0}',
        '{"max_new_tokens": 8, "temperature": 0.5, "stops": ["END"]}',
    )
    assert f"settings {there}, now {now}" in err
    assert "choose another output" in err
    assert target.read_bytes() == whole
    assert command(*files, *GREEDY)[0] == 0


def test_a_file_that_is_wrong_is_refused_before_anything_is_written(command: Run, tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "in.csv", 3, column="text")
    status, _, err = command("generate", "--input", source, "--output", tmp_path / "out.csv")
    assert (status, err.count("\n")) == (1, 1)
    assert "no column prompt" in err
    assert MissingColumn.__name__ not in err
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture(scope="module")
def tiny_gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tiny-gguf") / "tiny.gguf"
    gguf.write_gguf(tiny_folder, file, to="q8_0")
    return file


def generate(model: Path, source: Path, target: Path) -> tuple[str | Path, ...]:
    options = ("--max-new-tokens", "2", "--temperature", "0", "--memory-gb", "2")
    return ("generate", "--input", source, "--output", target, "--model", model, *options)


def test_ctrl_c_leaves_whole_rows_and_says_that_the_same_command_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    rows = 400  # more than are begun while row 50 is waited for
    source, target = write_prompts(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    arguments = generate(tiny_folder, source, target)
    stopped = run(*arguments, ended_at=50, by=signal.SIGINT)
    said = stopped.err.splitlines()[-1]
    done = int(said.removeprefix("Stopped: ").split()[0])
    assert (stopped.status, stopped.out, len(rows_of(target))) == (130, "", done)
    assert said == f"Stopped: {done} of {rows} rows are in {target}. The same command goes on from there."
    assert 50 <= done < rows
    finished = run(*arguments)
    assert (finished.status, finished.out) == (0, f"{rows} rows in {target}, 0 of them with an error.")
    assert [row["id"] for row in rows_of(target)] == [str(number) for number in range(rows)]


def test_a_file_whose_run_was_killed_has_every_row_once_after_the_next(tiny_gguf: Path, tmp_path: Path) -> None:
    source, target = write_prompts(tmp_path / "in.csv", 300), tmp_path / "out.csv"
    arguments = generate(tiny_gguf, source, target)
    at = random.randrange(20, 280)
    assert run(*arguments, ended_at=at).status == -signal.SIGKILL
    assert len(rows_of(target)) == at
    finished = run(*arguments)
    assert (finished.status, finished.out) == (0, f"300 rows in {target}, 0 of them with an error.")
    assert "Loading" not in finished.err
    assert [row["id"] for row in rows_of(target)] == [str(number) for number in range(300)], f"killed at row {at}"


@pytest.mark.slow
def test_ten_thousand_prompts_killed_at_a_random_row_are_all_there_once_in_flat_memory(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    rows = 10_000
    source, target = write_prompts(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    arguments = generate(tiny_gguf, source, target)
    at = random.randrange(2_000, 8_000)
    killed = run(*arguments, ended_at=at, measured=(1_000, at))
    assert killed.status == -signal.SIGKILL
    assert len(rows_of(target)) == at
    finished = run(*arguments, measured=(1_000, rows - at))
    assert finished.status == 0, finished.err
    assert [row["id"] for row in rows_of(target)] == [str(number) for number in range(rows)], f"killed at row {at}"
    for before, after in (
        (killed.memory[1_000], killed.memory[at]),
        (finished.memory[1_000], finished.memory[rows - at]),
    ):
        assert after[0] - before[0] < 10_000_000
        assert after[1] - before[1] < 200_000_000  # The engine's own: it grows ever more slowly, and settles.

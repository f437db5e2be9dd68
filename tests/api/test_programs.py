"""Programs of other people, pointed at the API as their manuals say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_demo import cli
from tests import tiny
from tests.api.conftest import MODEL, Served

SENTENCES = [line for line in tiny.CORPUS.splitlines() if len(line) > 60]


def test_the_command_llm_finds_the_model_and_talks_with_it(
    served: Served, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [{"model_id": "tiny", "model_name": MODEL, "api_base": served.v1}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("LLM_LOAD_PLUGINS", "")  # the embedded model's package is one, and asks for more than we do
    asked: Any = {"model": MODEL, "temperature": 0, "max_tokens": 12}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where do the boats go?"}]
    wanted = client.chat.completions.create(messages=messages, **asked).choices[0].message.content
    command = [sys.executable, "-m", "llm", "-m", "tiny", "-s", "Be brief.", "-o", "temperature", "0"]
    command += ["-o", "max_tokens", "12", "--key", "none", "Where do the boats go?"]
    for streamed in ([], ["--no-stream"]):
        done = subprocess.run([*command, *streamed], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout == wanted + "\n"
    usage = subprocess.run(
        [sys.executable, "-m", "llm", "logs", "--json", "-n", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(usage.stdout)[0]["input_tokens"] > 0


@pytest.mark.slow
def test_lm_eval_gets_the_log_likelihoods_of_its_own_hf_model(
    served: Served, tiny_folder: Path, tmp_path: Path
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    rows = [
        {"context": line[: len(line) // 2], "choices": [line[len(line) // 2 :], " and so on", " 1, 2, 3"], "label": 0}
        for line in SENTENCES
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "harbour",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{label}}",
        "doc_to_choice": "{{choices}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }

    def likelihoods(kind: str, **arguments: object) -> list[tuple[float, bool]]:
        found = lm_eval.simple_evaluate(
            model=kind,
            model_args=dict(arguments),
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
        samples = sorted(found["samples"]["harbour"], key=lambda sample: sample["doc_id"])
        return [(float(value), greedy) for sample in samples for [(value, greedy)] in sample["resps"]]

    local = likelihoods(
        "local-completions",
        model=MODEL,
        base_url=f"{served.v1}/completions",
        tokenizer=str(tiny_folder),
        tokenizer_backend="huggingface",
        num_concurrent=4,
        batch_size=2,
    )
    own = likelihoods("hf", pretrained=str(tiny_folder), dtype="float32", device="cpu")
    assert len(own) == 3 * len(rows)
    assert [value for value, _ in local] == pytest.approx([value for value, _ in own], abs=1e-3)
    assert [greedy for _, greedy in local] == [greedy for _, greedy in own]


@pytest.mark.parametrize("door", [[], ["--api"]], ids=["page", "v1"])
def test_bench_measures_the_page_and_the_api(
    served: Served, door: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", served.address, "--visitors", "2", "--rounds", "2", "--max-new-tokens", "4", "--json"]
    assert cli.main([*command, *door]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["requests"], report["failures"], report["probe_failures"]) == (4, 0, 0)

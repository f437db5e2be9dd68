"""The commands `convert` and `download`, as people run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_demo import cli
from llama_demo.checkpoints import gguf
from tests.checkpoints import meta_model
from tests.checkpoints.killed import writer
from tests.checkpoints.meta_model import Shape
from tests.hub_server import Behaviour, Refusal, serving


@pytest.fixture
def meta_folder(tmp_path: Path, tiny_sentencepiece_folder: Path) -> Path:
    folder = tmp_path / "llama-2-tiny"
    meta_model.write(folder, Shape(), tiny_sentencepiece_folder / "tokenizer.model", shards=2)
    return folder


@pytest.mark.parametrize(("kind", "stored"), [("f16", "F16"), ("q8_0", "Q8_0"), ("q4_0", "Q4_0"), ("", "Q8_0")])
def test_convert_writes_a_gguf_file_of_the_type_asked_for(
    kind: str, stored: str, meta_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.gguf"
    option = ["--quantize", kind] if kind else []
    assert cli.main(["convert", str(meta_folder), str(target), "--to", "gguf", *option]) == 0
    assert stored in gguf.read_header(target).tensor_types
    out, err = capsys.readouterr()
    assert out.startswith(f"{target} is written")
    assert " of " in err


def test_convert_writes_a_hugging_face_folder_in_the_type_asked_for(meta_folder: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(meta_folder), str(tmp_path / "hf"), "--to", "hf", "--dtype", "bfloat16"]
    assert cli.main(arguments) == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert cli.main(arguments) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "onnx"], "--to is onnx, but it must be hf or gguf"),
        (["--to", "hf", "--dtype", "int4"], "--dtype is int4"),
        (["--to", "gguf", "--quantize", "q9"], "--quantize is q9"),
        (["--to", "gguf", "--dtype", "float16"], "belongs to --to hf"),
        (["--to", "hf", "--quantize", "q8_0"], "belongs to --to gguf"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(
    options: list[str], words: str, meta_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", str(meta_folder), str(tmp_path / "new"), *options]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_bad_checkpoint_is_one_line_and_status_1(
    meta_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (meta_folder / "consolidated.01.pth").unlink()
    assert cli.main(["convert", str(meta_folder), str(tmp_path / "new"), "--to", "hf"]) == 1
    err = capsys.readouterr().err
    assert "consolidated.01.pth is missing" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


_SLOWLY = """
import sys, time
from llama_demo import cli
from llama_demo.checkpoints import hf_write
from pathlib import Path
write = hf_write.write_tokenizer
def held(source, folder):
    print("writing", flush=True)
    sys.stdin.read()
    write(source, folder)
hf_write.write_tokenizer = held
sys.exit(cli.main(["convert", sys.argv[1], sys.argv[2], "--to", "hf"]))
"""


def test_a_killed_conversion_leaves_no_model_and_the_next_one_clears_up(meta_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "model"
    with writer(_SLOWLY, meta_folder, target) as process:
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert list(target.parent.iterdir())
    assert cli.main(["convert", str(meta_folder), str(target), "--to", "hf"]) == 0
    assert list(target.parent.iterdir()) == [target]
    assert (target / "config.json").is_file()


def test_download_brings_a_model_of_the_catalog_and_says_where_it_is(tmp_path: Path, tiny_folder: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "llama_demo", "download"]

    def run(name: str, endpoint: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, name],
            capture_output=True,
            text=True,
            check=False,
            env=environment | {"HF_ENDPOINT": endpoint},
            cwd=Path(cli.__file__).parent.parent,
        )

    repo = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    message = "Your request to access model meta-llama/Llama-2-7b-hf is awaiting a review from the repo authors."
    acts = Behaviour(refusals={"meta-llama/Llama-2-7b-hf": Refusal(403, "GatedRepo", message)})
    with serving(repo, tiny_folder, acts) as endpoint:
        done = run("tinyllama-1.1b-chat", endpoint)
        folder = Path(done.stdout.strip().removeprefix("tinyllama-1.1b-chat is at ").removesuffix("."))
        assert (done.returncode, (folder / "model.safetensors").is_file()) == (0, True)
        assert (folder / "tokenizer.json").read_bytes() == (tiny_folder / "tokenizer.json").read_bytes()
        none = run("llama-2-7b", endpoint)
        refused, unknown = run("llama-2-7b-hf", endpoint), run("tinylama", endpoint)
    assert "it has no params.json" in none.stderr
    assert (refused.returncode, unknown.returncode) == (1, 2)
    assert "waits to be granted" in refused.stderr.splitlines()[-1]
    assert "tinyllama-1.1b-chat" in unknown.stderr

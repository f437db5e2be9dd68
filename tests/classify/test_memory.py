"""Classification uses the model that chats: what it takes beside that, by the registry's figures and the processes'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_demo.loading import ANALYSIS, ANALYSIS_WORK_BYTES
from tests import tiny

WORKSPACE_BYTES = 80_000_000
"""Whatever the model's size: activations of a batch, features that are kept, the fit."""
WIDE = {"hidden_size": 768, "intermediate_size": 2112, "num_hidden_layers": 6, "num_attention_heads": 12}
"""Some 150 MB of weights: a second copy could not be overlooked."""

pytestmark = pytest.mark.slow


def run(model: str, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.classify.memory_run", model, str(cache)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_on_transformers_it_takes_a_workspace_and_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    folder = tiny.write_byte_level(tmp_path / "wide-llama", **WIDE)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert weights > 1.5 * WORKSPACE_BYTES
    figures = run(str(folder), tmp_path / "cache")
    chat, classified = figures["chat"], figures["classified"]
    assert chat["own"] > weights
    assert classified["own"] - chat["own"] < WORKSPACE_BYTES
    assert classified["children"].keys() == chat["children"].keys()
    assert classified["holders"] == chat["holders"]
    assert classified["used"] == chat["used"]
    assert not classified["analyses"]


@pytest.mark.usefixtures("embedded_gguf")
def test_on_openvino_it_takes_one_analysis_graph_which_is_shown_and_can_be_unloaded(tmp_path: Path) -> None:
    figures = run("", tmp_path)
    chat, classified, unloaded = figures["chat"], figures["classified"], figures["unloaded"]
    (analysis,) = set(classified["holders"]) - set(chat["holders"])
    assert classified["analyses"] == [analysis]
    assert analysis.endswith(ANALYSIS)
    charged = classified["holders"][analysis]
    assert classified["used"] - chat["used"] == charged > ANALYSIS_WORK_BYTES
    (process,) = set(classified["children"]) - set(chat["children"])
    assert classified["children"][process] <= charged
    assert classified["own"] - chat["own"] < WORKSPACE_BYTES
    assert unloaded["used"] == chat["used"]
    assert unloaded["children"].keys() == chat["children"].keys()
    assert not unloaded["analyses"]

"""Models that the owner adds: what is taken, what is refused and why, and that a restart knows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llama_demo.added_models import AddedModels, entry_for
from llama_demo.checkpoints import gguf
from llama_demo.errors import BadCheckpoint, HubUnavailable, InvalidParameter
from llama_demo.reasons import Reason
from tests.checkpoints import meta_model


@pytest.fixture
def meta_folder(tmp_path: Path, tiny_sentencepiece_folder: Path) -> Path:
    folder = tmp_path / "Meta Model"
    meta_model.write(folder, meta_model.Shape(), tiny_sentencepiece_folder / "tokenizer.model")
    return folder


def test_a_folder_and_a_file_are_told_apart_and_get_names_of_their_own(
    tmp_path: Path, tiny_folder: Path, meta_folder: Path
) -> None:
    file = tmp_path / "tiny-llama.gguf"
    gguf.write_gguf(tiny_folder, file, to="q8_0")
    found = [entry_for(str(path), ["tiny-llama"]) for path in (tiny_folder, file, meta_folder)]
    assert [(entry.format, entry.name) for entry in found] == [
        ("hf", "tiny-llama-2"),
        ("gguf", "tiny-llama-2"),
        ("meta", "meta-model"),
    ]


def test_a_restart_knows_what_was_added_and_leaves_out_what_has_gone(tmp_path: Path, tiny_folder: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    shutil.copytree(tiny_folder, kept)
    shutil.copytree(tiny_folder, gone)
    file = tmp_path / "cache" / "added.json"
    added = AddedModels(file)
    for path in (kept, gone):
        added.add(entry_for(str(path), []))
    assert AddedModels(file).entries == added.entries
    shutil.rmtree(gone)
    assert [entry.name for entry in AddedModels(file).entries] == ["kept"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"model": 5}', b'{"model": [{"name": "x"}]}'])
def test_a_damaged_list_starts_empty(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "added.json"
    file.write_bytes(content)
    assert AddedModels(file).entries == ()


def test_the_folder_one_level_up_or_down_is_named(meta_folder: Path, tiny_folder: Path) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        entry_for(str(meta_folder.parent), [])
    assert caught.value.problem == Reason("checkpoint.near", place=meta_folder)


def test_what_is_no_llama_is_refused_with_the_reason(tmp_path: Path, tiny_folder: Path, meta_folder: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["MistralForCausalLM"]}))
    with pytest.raises(BadCheckpoint, match="LlamaForCausalLM"):
        entry_for(str(other), [])
    (meta_folder / "params.json").write_text("<!DOCTYPE html><html>expired</html>")
    with pytest.raises(BadCheckpoint, match="expired"):
        entry_for(str(meta_folder), [])
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(BadCheckpoint):
        entry_for(str(tmp_path / "short.gguf"), [])
    with pytest.raises(BadCheckpoint, match="only_gguf"):
        entry_for(str(other / "model.safetensors"), [])


@pytest.mark.parametrize("text", ["", "   ", "no such thing", "a/b/c", "OWNER/", "-x/y"])
def test_what_is_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        entry_for(text, [])


def test_a_repository_needs_the_network() -> None:
    with pytest.raises(HubUnavailable):
        entry_for("somebody/Some-Llama", [])

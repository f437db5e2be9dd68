"""Original Meta checkpoints, converted, against the paper's own forward pass; and every way in which one is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llama_demo.added_models import entry_for
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.convert import convert, read_checkpoint
from llama_demo.checkpoints.hf_write import Dtype, write_hf
from llama_demo.errors import BadCheckpoint, DiskFull, TargetExists
from llama_demo.messages import messages
from llama_demo.tokenizer import Tokenizer
from tests.checkpoints import meta_model
from tests.checkpoints.meta_model import Shape

SHAPES = {
    "plain": (Shape(), 1),
    "two shards": (Shape(), 2),
    "four shards, grouped queries": (Shape(heads=8, kv_heads=4), 4),
    "eight shards as the 70B": (Shape(dim=256, heads=16, kv_heads=8, ffn_dim_multiplier=1.3), 8),
    "grouped queries, wider network": (Shape(heads=4, kv_heads=2, ffn_dim_multiplier=1.3, multiple_of=64), 2),
    "another rotary base": (Shape(kv_heads=1, rope_theta=1e6, norm_eps=1e-3), 1),
}
IDS = torch.arange(3, 60)


@pytest.fixture(scope="session")
def sentencepiece(tiny_sentencepiece_folder: Path) -> Path:
    return tiny_sentencepiece_folder / "tokenizer.model"


@pytest.fixture
def folder(tmp_path: Path, sentencepiece: Path) -> Path:
    """Two shards of a small model."""
    meta_model.write(tmp_path / "llama-2-tiny", Shape(kv_heads=2), sentencepiece, shards=2)
    return tmp_path / "llama-2-tiny"


def transformers_logits(folder: Path, file: str | None = None) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=file, dtype=torch.float32)
    with torch.no_grad():
        result: torch.Tensor = model(IDS[None]).logits[0]
    return result


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "shared head"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_converted_model_computes_what_the_original_does(
    name: str, tied: bool, tmp_path: Path, sentencepiece: Path
) -> None:
    shape, shards = SHAPES[name]
    whole = meta_model.write(tmp_path / "meta", shape, sentencepiece, shards=shards, tied=tied)
    judge = meta_model.logits(shape, whole, IDS)
    convert(tmp_path / "meta", tmp_path / "hf", to="hf")
    assert torch.allclose(transformers_logits(tmp_path / "hf"), judge, atol=1e-4)
    convert(tmp_path / "meta", tmp_path / "gguf" / "model.gguf", to="gguf", quantization="f32")
    assert torch.allclose(transformers_logits(tmp_path / "gguf", "model.gguf"), judge, atol=1e-4)
    assert gguf.read_header(tmp_path / "gguf" / "model.gguf").tied_embeddings == tied


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_weights_keep_their_type_bit_by_bit(dtype: str, tmp_path: Path, sentencepiece: Path) -> None:
    from safetensors.torch import load_file

    kind: torch.dtype = getattr(torch, dtype)
    whole = meta_model.write(tmp_path / "meta", Shape(), sentencepiece, shards=2, dtype=kind)
    convert(tmp_path / "meta", tmp_path / "hf", to="hf")
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {kind}
    assert torch.equal(stored["model.embed_tokens.weight"], whole["tok_embeddings.weight"])
    assert torch.equal(stored["model.layers.1.mlp.down_proj.weight"], whole["layers.1.feed_forward.w2.weight"])
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_another_type_is_what_torch_rounds_to(
    source: torch.dtype, dtype: Dtype, tmp_path: Path, sentencepiece: Path
) -> None:
    from safetensors.torch import load_file

    whole = meta_model.write(tmp_path / "meta", Shape(), sentencepiece, dtype=source)
    convert(tmp_path / "meta", tmp_path / "hf", to="hf", dtype=dtype)
    stored = load_file(tmp_path / "hf" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(stored, whole["layers.0.feed_forward.w3.weight"].to(getattr(torch, dtype)))


def test_large_models_are_written_in_several_files_with_an_index(folder: Path, tmp_path: Path) -> None:
    write_hf(read_checkpoint(folder), tmp_path / "hf", shard_bytes=300_000)
    names = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    convert(folder, tmp_path / "one", to="hf")
    assert torch.equal(transformers_logits(tmp_path / "hf"), transformers_logits(tmp_path / "one"))
    gguf.write_gguf(tmp_path / "hf", tmp_path / "model.gguf", to="f16")


def test_a_missing_file_of_several_is_told_before_anything_is_loaded_or_written(folder: Path, tmp_path: Path) -> None:
    write_hf(read_checkpoint(folder), tmp_path / "hf", shard_bytes=300_000)
    sorted((tmp_path / "hf").glob("*.safetensors"))[1].unlink()
    with pytest.raises(BadCheckpoint, match="safetensors_missing, name="):
        entry_for(str(tmp_path / "hf"), [])
    with pytest.raises(BadCheckpoint, match="safetensors_missing, name="):
        convert(tmp_path / "hf", tmp_path / "model.gguf", to="gguf")
    assert not (tmp_path / "model.gguf").exists()


TEXTS = ["The harbour lies below the old town.", " two  spaces", "안녕하세요 🎉", "", "a\n\nb", "1, 2, 100"]


def test_the_tokenizer_gives_the_ids_of_sentencepiece_in_both_libraries(
    folder: Path, tmp_path: Path, sentencepiece: Path
) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    convert(folder, tmp_path / "hf", to="hf")
    judge = SentencePieceProcessor(model_file=str(sentencepiece))
    ours, theirs = Tokenizer.load(tmp_path / "hf"), AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    for text in TEXTS:
        assert ours.encode(text) == judge.encode(text)
        assert theirs.encode(text) == [1, *judge.encode(text)]
    assert (ours.bos_id, ours.eos_ids) == (1, frozenset({2}))


def test_a_chat_model_brings_its_template_and_a_base_model_none(tmp_path: Path, sentencepiece: Path) -> None:
    for name in ("llama-2-7b-chat", "llama-2-7b"):
        meta_model.write(tmp_path / name, Shape(), sentencepiece)
        convert(tmp_path / name, tmp_path / f"{name}-hf", to="hf")
    assert "[INST]" in str(Tokenizer.load(tmp_path / "llama-2-7b-chat-hf").chat_template)
    assert Tokenizer.load(tmp_path / "llama-2-7b-hf").chat_template is None


def test_the_tokenizer_may_lie_in_the_folder_above_as_metas_download_puts_it(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "tokenizer.model", folder.parent / "tokenizer.model")
    convert(folder, tmp_path / "hf", to="hf")
    assert (tmp_path / "hf" / "tokenizer.model").is_file()
    (folder.parent / "tokenizer.model").unlink()
    assert "tokenizer.model is missing" in refused(folder)


def test_a_hugging_face_folder_is_written_again_in_another_type(tiny_folder: Path, tmp_path: Path) -> None:
    convert(tiny_folder, tmp_path / "half", to="hf", dtype="bfloat16")
    assert (tmp_path / "half" / "tokenizer.json").read_bytes() == (tiny_folder / "tokenizer.json").read_bytes()
    assert (tmp_path / "half" / "generation_config.json").is_file()
    difference = transformers_logits(tmp_path / "half") - transformers_logits(tiny_folder)
    assert 0 < difference.abs().max() < 0.5


# What is refused.


def refused(folder: Path) -> str:
    """The problem with `folder`, which leaves nothing behind."""
    target = folder.parent / "refused"
    with pytest.raises(BadCheckpoint) as caught:
        convert(folder, target, to="hf")
    assert not target.exists()
    assert not list(folder.parent.glob(".*partial"))
    return messages().reason(caught.value.problem)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "consolidated.00.pth").rename(folder / "away")
    assert "consolidated.00.pth is missing" in refused(folder)
    (folder / "away").rename(folder / "consolidated.00.pth")
    (folder / "consolidated.01.pth").unlink()
    assert "consolidated.01.pth is missing" in refused(folder)
    (folder / "checklist.chk").unlink()
    assert "1 of the 2 shards" in refused(folder)
    (folder / "consolidated.00.pth").unlink()
    assert "consolidated.00.pth is missing" in refused(folder)


def test_a_shard_too_many_or_of_another_model_is_refused(folder: Path, tmp_path: Path, sentencepiece: Path) -> None:
    (folder / "checklist.chk").unlink()
    shutil.copyfile(folder / "consolidated.01.pth", folder / "consolidated.02.pth")
    assert "3 of the 2 shards" in refused(folder)
    (folder / "consolidated.02.pth").unlink()
    other = meta_model.weights(Shape(kv_heads=2), torch.float32)
    other["norm.weight"] += 1
    part = {name: meta_model.cut(name, tensor, 1, 2) for name, tensor in other.items()}
    torch.save(part, folder / "consolidated.01.pth")
    assert "they are of several models" in refused(folder)
    del part["norm.weight"]
    torch.save(part, folder / "consolidated.01.pth")
    assert "are not those of consolidated.00.pth" in refused(folder)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_shard_that_carries_code_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    (folder / "checklist.chk").unlink()
    torch.save({"layers.0.attention.wq.weight": Payload(tmp_path / "was run")}, folder / "consolidated.00.pth")
    assert "carries code" in refused(folder)
    (folder / "consolidated.00.pth").write_bytes(pickle.dumps(Payload(tmp_path / "was run")))
    assert "not a PyTorch archive" in refused(folder)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9, 0.9999])
def test_a_shard_cut_short_is_refused(share: float, folder: Path) -> None:
    (folder / "checklist.chk").unlink()
    file = folder / "consolidated.01.pth"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    problem = refused(folder)
    assert "cut short" in problem or "not a PyTorch archive" in problem


def test_a_shard_with_any_byte_of_its_records_changed_never_crashes(folder: Path, tmp_path: Path) -> None:
    (folder / "checklist.chk").unlink()
    file = folder / "consolidated.01.pth"
    whole = file.read_bytes()
    chance = random.Random(4)
    places = [chance.randrange(-3000, 3000) for _ in range(120)]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << chance.randrange(8)
        file.write_bytes(broken)
        with contextlib.suppress(BadCheckpoint):
            read_checkpoint(folder)


def test_a_changed_number_is_found_by_its_checksum(folder: Path) -> None:
    file = folder / "consolidated.01.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "checksum" in refused(folder)


def test_numbers_that_are_none_are_refused_where_they_are_computed_with(folder: Path, tmp_path: Path) -> None:
    (folder / "checklist.chk").unlink()
    part = torch.load(folder / "consolidated.00.pth", weights_only=True)
    part["layers.1.feed_forward.w1.weight"][3, 4] = float("nan")
    torch.save(part, folder / "consolidated.00.pth")
    with pytest.raises(BadCheckpoint) as caught:
        convert(folder, tmp_path / "model.gguf", to="gguf")
    assert caught.value.problem.key == "checkpoint.no_number"
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dim": None}, "it lacks dim"),
        ({"dim": 256}, "of the size that params.json gives"),
        ({"n_heads": 3}, "evenly"),
        ({"n_kv_heads": 3}, "not a multiple"),
        ({"n_layers": "two"}, "its n_layers is two"),
        ({"n_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
        ({"n_kv_heads": 4}, "self_attn.k_proj.weight is (64, 128)"),
        ({"multiple_of": 512}, "mlp.gate_proj.weight is"),
        ({"vocab_size": 32000}, "vocab_size is 32000"),
        ({"norm_eps": 0}, "norm_eps"),
        ({"use_scaled_rope": True}, "later family"),
    ],
)
def test_params_that_do_not_describe_the_weights_are_refused(
    change: dict[str, Any], problem: str, folder: Path
) -> None:
    (folder / "checklist.chk").unlink()
    params = json.loads((folder / "params.json").read_text()) | change
    (folder / "params.json").write_text(
        json.dumps({name: value for name, value in params.items() if value is not None})
    )
    assert problem in refused(folder)


@pytest.mark.parametrize(
    ("text", "problem"), [("<!DOCTYPE html>", "web page"), ("[", "JSON"), ("[1]", "JSON"), ("7", "J")]
)
def test_params_that_are_no_params_are_refused(text: str, problem: str, folder: Path) -> None:
    (folder / "params.json").write_text(text)
    assert problem in refused(folder)


def test_the_folder_one_level_up_or_down_names_the_right_one(folder: Path) -> None:
    assert f"did you mean {folder}" in refused(folder.parent)
    (folder / "inner").mkdir()
    assert f"did you mean {folder}" in refused_at(folder / "inner")
    assert "no such folder" in refused_at(folder / "nothing")
    assert "it is a file" in refused_at(folder / "params.json")


def refused_at(path: Path) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        read_checkpoint(path)
    return messages().reason(caught.value.problem)


def test_what_is_there_already_is_never_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    convert(folder, tmp_path / "hf", to="hf")
    for target in (tmp_path / "hf", folder / "params.json"):
        with pytest.raises(TargetExists):
            convert(folder, target, to="hf")
        with pytest.raises(TargetExists):
            convert(folder, target, to="gguf")


def test_a_full_disk_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    for to in ("hf", "gguf"):
        with pytest.raises(DiskFull):
            convert(folder, tmp_path / "new" / "target", to=to)
        assert not list((tmp_path / "new").iterdir())


def test_progress_grows_from_nothing_to_everything(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    convert(folder, tmp_path / "hf", to="hf", report=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    assert np.mean([done < total for done, total in told]) > 0.9

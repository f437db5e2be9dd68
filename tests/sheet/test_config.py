"""A model's configuration from each kind of file, and from the catalog alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_demo.catalog import EMBEDDED, Entry, read_catalog
from llama_demo.checkpoints import gguf
from llama_demo.sheet import read_sheet
from llama_demo.sheet.config import DEFAULTS, describe, fields_of
from llama_demo.sheet.parameters import attention_of, count_parameters
from tests.checkpoints import meta_model


def local(path: Path, kind: str) -> Entry:
    catalog, name = read_catalog(str(path))
    entry = catalog.find(name)
    assert entry.format == kind
    return entry


def test_every_field_of_llama_config_is_there_with_its_default() -> None:
    own = {field.name: field for field in dataclasses.fields(LlamaConfig) if field.name in LlamaConfig.__annotations__}
    assert set(DEFAULTS) == {*own, "dtype"}
    assert {name: own[name].default for name in own} == {name: DEFAULTS[name] for name in own}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_parts_are_the_models_own_numbers(tied: bool, bias: bool) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
        attention_bias=bias,
        mlp_bias=bias,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    parts = {part.name: part.count for part in count_parameters(config.to_dict())}
    assert sum(parts.values()) == sum(each.numel() for each in model.parameters())
    layers = model.model.layers.named_parameters()
    assert parts["attention"] == sum(each.numel() for name, each in layers if "self_attn" in name)
    assert parts["head"] == (0 if tied else 50 * 32)


@pytest.mark.parametrize(
    ("name", "parameters", "kib", "group"),
    [
        ("llama-2-7b-chat-hf", 6_738_415_616, 512, 1),
        ("llama-2-13b", 13_015_864_320, 800, 1),
        ("llama-2-70b-hf", 68_976_648_192, 320, 8),
    ],
)
def test_the_family_is_known_before_any_download(name: str, parameters: int, kib: int, group: int) -> None:
    sheet = read_sheet(read_catalog("")[0].find(name))
    assert (sheet.source, sheet.parameters) == ("known", parameters)
    assert sheet.kv_bytes_per_token == kib * 1024
    assert sheet.attention is not None
    assert sheet.attention.group == group
    assert {field.name: field.value for field in sheet.fields}["vocab_size"] == 32000
    assert sheet.tokenizer is None


def test_a_folder_a_gguf_file_and_metas_folder_of_one_model_say_the_same(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    folder = tiny_sentencepiece_folder
    file = tmp_path / "tiny.gguf"
    gguf.write_gguf(folder, file, to="q8_0")
    meta = tmp_path / "meta"
    shape = meta_model.Shape(dim=128, layers=3, heads=4, kv_heads=2)
    meta_model.write(meta, shape, folder / "tokenizer.model")
    sheets = [read_sheet(local(path, kind)) for path, kind in ((folder, "hf"), (file, "gguf"), (meta, "meta"))]
    assert [sheet.source for sheet in sheets] == ["config", "gguf", "meta"]
    assert {sheet.attention for sheet in sheets} == {sheets[0].attention}
    assert sheets[0].parts == sheets[1].parts
    assert {sheet.tokenizer.vocabulary for sheet in sheets if sheet.tokenizer} == {416}
    assert [sheet.tokenizer.has_sentencepiece for sheet in sheets if sheet.tokenizer] == [True, False, True]
    assert {field.name: field.value for field in sheets[2].fields}["vocab_size"] == 416


def test_older_names_are_read_as_todays(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 4, "hidden_size": 64,'
        ' "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 50, "rope_theta": 5e5,'
        ' "rope_scaling": {"type": "linear", "factor": 2.0}, "torch_dtype": "bfloat16"}'
    )
    described = describe(local(tmp_path, "hf"), tmp_path)
    fields = {field.name: field for field in fields_of(described)}
    assert fields["rope_parameters"].value == {
        "rope_theta": 5e5,
        "type": "linear",
        "factor": 2.0,
        "rope_type": "linear",
    }
    assert fields["dtype"].value == "bfloat16"
    assert (fields["num_key_value_heads"].value, fields["num_key_value_heads"].is_given) == (4, False)
    assert attention_of(described.values).kv_heads == 4


def test_the_embedded_model_has_a_whole_sheet(embedded_gguf: Path) -> None:
    sheet = read_sheet(EMBEDDED)
    assert sheet.parameters == EMBEDDED.parameters
    assert sheet.attention is not None
    assert (sheet.attention.heads, sheet.attention.kv_heads) == (9, 3)
    assert sheet.tokenizer is not None
    assert (sheet.tokenizer.kind, sheet.tokenizer.template) == ("byte_level", "own")

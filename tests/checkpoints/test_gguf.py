"""GGUF files: refused where they are damaged, requantised, and written from Hugging Face folders."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest

from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.gguf_read import read_container
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.checkpoints.gguf_write import Quantization, encode_fields
from llama_demo.checkpoints.whole import replacing
from llama_demo.errors import BadCheckpoint, DiskFull
from llama_demo.messages import messages
from llama_demo.tokenizer import Tokenizer
from tests import tiny

TEXTS = [
    "Hello world, it's me",
    " leading",
    "  two spaces",
    "a  b   c",
    "안녕하세요, 서울 🎉👩‍👩‍👧",
    "one\n\ntwo\tthree\r\n",
    "In 2024 there were 1234567 of 12.5%",
    "",
    " ",
    "don't WE'LL ½ x²",
]

NAMED = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}


@pytest.fixture(scope="module")
def tiny_gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf.write_gguf(tiny_folder, target, to="f32")
    return target


def logits(folder: Path, file: str | None = None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=file, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(3, 60)[None]).logits[0]


def values(path: Path, *only: str) -> dict[str, tuple[str, Any]]:
    """Type and values by name, as the format's own package reads them."""
    return {
        tensor.name: (tensor.tensor_type.name, reference.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reference.GGUFReader(path).tensors
        if not only or tensor.name in only
    }


def container(**fields: Any) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + encode_fields(fields)


# What a file says about itself.


def test_the_embedded_file_is_read_as_it_is(embedded_gguf: Path) -> None:
    header = gguf.read_header(embedded_gguf)
    assert (header.architecture, header.tokenizer_model) == ("llama", "gpt2")
    assert (header.block_count, header.head_count, header.head_count_kv, header.head_dim) == (30, 9, 3, 64)
    assert (header.context_length, header.vocab_size, header.parameters) == (8192, 49152, 134_515_008)
    assert header.tied_embeddings
    assert header.tensor_types["Q4_1"] == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert gguf.unfaithful_types(header) == ("Q4_1",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"GG", "not a GGUF"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF"),
        (b"\n <!DOCTYPE html><html>expired</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS"),
        (b"GGUF", "cut short"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\1\0\0\0\0\0\0\0a" + struct.pack("<IIQ", 9, 4, 2**40), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\1\0\0\0\0\0\0\0a" + struct.pack("<IIQ", 9, 4, 2**20), "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\1\0\0\0\0\0\0\0a" + struct.pack("<IIQ", 9, 9, 1), "unknown type"),
        (container(**{"general.architecture": "mamba"}), "mamba"),
        (container(**{"general.architecture": 7}), "not a text"),
        (container(**{"general.alignment": 3}), "alignment"),
        (container(**{"general.architecture": "llama"}), "lack"),
        (container(**{"general.architecture": "llama", "llama.attention.head_count": 0}), "not a count"),
        (container(), "lack general.architecture"),
    ],
)
def test_a_file_that_is_no_model_is_refused_with_what_it_is(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint) as caught:
        gguf.read_header(path)
    assert problem in messages().reason(caught.value.problem)
    assert caught.value.path == str(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="No such file"):
        gguf.read_header(tmp_path / "none.gguf")


def test_a_file_cut_anywhere_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    content, path = tiny_gguf.read_bytes(), tmp_path / "cut.gguf"
    end = max(tensor.offset + tensor.bytes for tensor in read_container(tiny_gguf).tensors)
    start = min(tensor.offset for tensor in read_container(tiny_gguf).tensors)
    for length in {*range(0, start, 499), start, (start + end) // 2, end - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(BadCheckpoint):
            gguf.read_header(path)
    path.write_bytes(content[:end])
    gguf.read_header(path)


def test_a_file_with_any_byte_of_its_header_changed_never_crashes(tiny_gguf: Path, tmp_path: Path) -> None:
    content, path = tiny_gguf.read_bytes(), tmp_path / "changed.gguf"
    random = np.random.default_rng(7)
    span = min(tensor.offset for tensor in read_container(tiny_gguf).tensors)
    for place in random.integers(4, span, 80):
        path.write_bytes(content[:place] + bytes(random.integers(0, 256, 3, np.uint8)) + content[place + 3 :])
        with contextlib.suppress(BadCheckpoint):
            gguf.read_header(path)
            gguf.write_tokenizer(path, tmp_path / "tokenizer")


def test_a_missing_tensor_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_oh.weight"))
    with pytest.raises(BadCheckpoint, match=r"tensor_missing, name='blk\.1\.ffn_up\.weight'"):
        gguf.read_header(path)


# Written again in another type.


def test_requantising_keeps_values_metadata_and_what_is_already_faithful(embedded_gguf: Path, tmp_path: Path) -> None:
    target, told = tmp_path / "q8.gguf", []
    gguf.requantize(embedded_gguf, target, report=lambda done, total: told.append((done, total)))
    assert not gguf.unfaithful_types(gguf.read_header(target))
    names = ("token_embd.weight", "blk.0.attn_norm.weight", "blk.7.ffn_down.weight", "blk.29.attn_q.weight")
    before, after = values(embedded_gguf, *names), values(target, *names)
    for name in names:
        (old_type, old), (new_type, new) = before[name], after[name]
        if old_type == "Q4_1":
            assert new_type == "Q8_0"
            blocks = old.reshape(-1, 32)
            half_step = np.abs(blocks).max(axis=1, keepdims=True) / 127 / 2
            assert (np.abs(blocks - new.reshape(-1, 32)) <= half_step * 1.15 + 1e-7).all()
        else:
            assert new_type == old_type
            assert np.array_equal(old, new)
    old_tensors, new_tensors = read_container(embedded_gguf).tensors, read_container(target).tensors
    assert [(tensor.name, tensor.shape) for tensor in old_tensors] == [
        (tensor.name, tensor.shape) for tensor in new_tensors
    ]
    old_fields, new_fields = read_container(embedded_gguf).fields, read_container(target).fields
    assert new_fields == {**old_fields, "general.file_type": 7}
    assert told == sorted(told)
    assert {total for _, total in told} == {target.stat().st_size}
    assert told[0][0] < told[-1][0] <= target.stat().st_size


@pytest.mark.parametrize("to", ["f16", "q4_0"])
def test_a_float_file_becomes_any_type(tiny_gguf: Path, tmp_path: Path, to: Quantization) -> None:
    target = tmp_path / "other.gguf"
    gguf.requantize(tiny_gguf, target, to=to)
    assert {kind for kind, _ in values(target).values()} == {"F32", to.upper()}


def test_values_that_are_no_numbers_are_refused_and_leave_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "nan.gguf", tmp_path / "out"
    content = bytearray(tiny_gguf.read_bytes())
    tensor = next(tensor for tensor in read_container(tiny_gguf).tensors if len(tensor.shape) == 2)
    content[tensor.offset : tensor.offset + 4] = struct.pack("<f", float("nan"))
    source.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="no_number"):
        gguf.requantize(source, folder / "q8.gguf")
    assert list(folder.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(b"old")
    writing = replacing(target, 10)
    writing.__enter__().write(b"half")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_before_anything_is_written(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    with pytest.raises(DiskFull) as caught:
        gguf.requantize(tiny_gguf, tmp_path / "q8.gguf")
    assert caught.value.free_bytes == 10
    assert caught.value.needed_bytes > 10
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), replacing(tmp_path / "model.gguf", 10):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


# The tokenizer.


@pytest.fixture(scope="module")
def embedded_tokenizer(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    gguf.write_tokenizer(embedded_gguf, folder)
    return folder


def test_the_embedded_tokenizer_takes_each_digit_by_itself(embedded_tokenizer: Path) -> None:
    """Its true pre-tokenizer, made here from the library's parts: digits first, then byte-level words."""
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import pre_tokenizers

    document = json.loads((embedded_tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    truth = FastTokenizer.from_str(json.dumps({**document, "pre_tokenizer": None}))
    truth.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer = Tokenizer.load(embedded_tokenizer)
    for text in TEXTS:
        assert tokenizer.encode(text) == truth.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text
    digits = tokenizer.encode("2024")
    assert [tokenizer.decode([number]) for number in digits] == ["2", "0", "2", "4"]


def test_the_embedded_tokenizer_opens_in_transformers_with_its_names_and_template(embedded_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(str(embedded_tokenizer)), Tokenizer.load(embedded_tokenizer)
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert theirs.chat_template == ours.chat_template
    assert "SmolLM" in str(ours.chat_template)
    assert ours.eos_ids == {2}
    assert [theirs.encode(text, add_special_tokens=False) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


def test_an_unknown_pre_tokenizer_is_refused_by_name(embedded_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(embedded_gguf.read_bytes().replace(b"\6\0\0\0\0\0\0\0smollm", b"\6\0\0\0\0\0\0\0unheard"[:-1], 1))
    with pytest.raises(BadCheckpoint, match="unhear"):
        gguf.write_tokenizer(path, tmp_path / "tokenizer")


def test_a_byte_level_tokenizer_survives_the_way_to_gguf_and_back(
    tiny_gguf: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    gguf.write_tokenizer(tiny_gguf, tmp_path)
    before, after = Tokenizer.load(tiny_folder), Tokenizer.load(tmp_path)
    assert [before.encode(text) for text in TEXTS] == [after.encode(text) for text in TEXTS]
    assert before.chat_template == after.chat_template
    assert before.eos_ids == after.eos_ids
    assert before.special_tokens == after.special_tokens


@pytest.fixture(params=["tokenizer.json", "tokenizer.model"])
def sentencepiece_source(request: pytest.FixtureRequest, tiny_sentencepiece_folder: Path, tmp_path: Path) -> Path:
    """The folder with one of the two files that tell its tokenizer."""
    folder = tmp_path / "source"
    other = {"tokenizer.json", "tokenizer.model"} - {request.param}
    shutil.copytree(tiny_sentencepiece_folder, folder, ignore=shutil.ignore_patterns(*other))
    return folder


def test_a_sentencepiece_tokenizer_gives_the_ids_of_sentencepiece_itself(
    sentencepiece_source: Path, tiny_sentencepiece_folder: Path, tmp_path: Path
) -> None:
    """`sentencepiece` is the judge: transformers' LlamaTokenizer swallows a text's first space, and it does not."""
    from sentencepiece import SentencePieceProcessor

    gguf.write_gguf(sentencepiece_source, tmp_path / "model.gguf", to="f16")
    gguf.write_tokenizer(tmp_path / "model.gguf", tmp_path / "tokenizer")
    judge = SentencePieceProcessor(model_file=str(tiny_sentencepiece_folder / "tokenizer.model"))
    ours = Tokenizer.load(tmp_path / "tokenizer")
    for text in TEXTS:
        assert ours.encode(text) == judge.encode(text), text
        assert ours.decode(ours.encode(text)) == text
    assert ours.bos_id == judge.bos_id()
    assert ours.eos_ids == {judge.eos_id()}


@pytest.mark.parametrize(
    "config", [None, {}, {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}]
)
@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_llama_2_s_own_piece_none_is_no_token_that_is_not_named(
    file: str, config: dict[str, Any] | None, tmp_path: Path
) -> None:
    made = tiny.write_sentencepiece(tmp_path / "made", "None")
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(made / file, folder)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    fields = vocabulary_fields(folder, 416)
    tokens = fields["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    numbers = {name: number for name, number in fields.items() if name.endswith("_token_id")}
    named = {name: tokens[number] for name, number in numbers.items() if isinstance(number, int)}
    assert named.keys() == numbers.keys()
    assert "None" in tokens
    assert "None" not in named.values()
    if file == "tokenizer.model" or config:
        assert (named["tokenizer.ggml.bos_token_id"], named["tokenizer.ggml.eos_token_id"]) == ("<s>", "</s>")


def test_a_sentencepiece_tokenizer_gives_transformers_ids_where_no_space_comes_first(
    tiny_sentencepiece_folder: Path, tmp_path: Path
) -> None:
    from transformers import LlamaTokenizer

    gguf.write_gguf(tiny_sentencepiece_folder, tmp_path / "model.gguf", to="f16")
    gguf.write_tokenizer(tmp_path / "model.gguf", tmp_path / "tokenizer")
    theirs, ours = (
        LlamaTokenizer.from_pretrained(str(tiny_sentencepiece_folder)),
        Tokenizer.load(tmp_path / "tokenizer"),
    )
    for text in TEXTS:
        if not text.startswith(" "):
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text


# A Hugging Face folder as one file.


@pytest.mark.parametrize("name", ["tiny_folder", "tiny_sentencepiece_folder"])
def test_a_written_model_computes_what_the_original_does(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    gguf.write_gguf(folder, tmp_path / "model.gguf", to="f32")
    assert np.allclose(logits(folder), logits(tmp_path, "model.gguf"), atol=1e-4)


@pytest.mark.parametrize("to", ["f16", "q8_0", "q4_0"])
def test_a_written_models_matrices_are_of_the_type_asked_for(
    tiny_folder: Path, tmp_path: Path, to: Quantization
) -> None:
    target = tmp_path / "model.gguf"
    gguf.write_gguf(tiny_folder, target, to=to)
    exact_file = tmp_path / "exact.gguf"
    gguf.write_gguf(tiny_folder, exact_file, to="f32")
    exact = values(exact_file)
    for name, (kind, found) in values(target).items():
        assert kind == ("F32" if found.ndim == 1 else to.upper())
        assert np.abs(found - exact[name][1]).max() <= np.abs(exact[name][1]).max() / (7 if to == "q4_0" else 200)


@pytest.fixture
def remade(tiny_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "remade"
    shutil.copytree(tiny_folder, folder)
    return folder


def test_bfloat16_and_tied_embeddings_are_written_right(remade: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(str(remade), tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(remade))
    gguf.write_gguf(remade, tmp_path / "model.gguf", to="f32")
    assert gguf.read_header(tmp_path / "model.gguf").tied_embeddings
    assert np.allclose(logits(remade), logits(tmp_path, "model.gguf"), atol=1e-4)


def test_an_output_matrix_of_its_own_is_kept_whatever_the_configuration_says(remade: Path, tmp_path: Path) -> None:
    """As transformers does: it does not tie what differs in the file."""
    path = remade / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    gguf.write_gguf(remade, tmp_path / "model.gguf", to="f32")
    assert np.allclose(logits(remade), logits(tmp_path, "model.gguf"), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ({"hidden_size": "many"}, "not_count"),
        ({"num_hidden_layers": None}, "not_count"),
    ],
)
def test_a_configuration_that_gguf_cannot_say_is_refused(
    remade: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    path = remade / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadCheckpoint, match=problem):
        gguf.write_gguf(remade, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_weights_cut_short_are_refused(remade: Path, tmp_path: Path, length: int) -> None:
    path = remade / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadCheckpoint):
        gguf.write_gguf(remade, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_folder_without_weights_or_tokenizer_is_refused(remade: Path, tmp_path: Path) -> None:
    (remade / "tokenizer.json").unlink()
    with pytest.raises(BadCheckpoint, match="neither_tokenizer"):
        gguf.write_gguf(remade, tmp_path / "model.gguf")
    (remade / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="no_safetensors"):
        gguf.write_gguf(remade, tmp_path / "model.gguf")

"""Saved folders, read by plain transformers; and pushes to a stand-in Hub, as people run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_demo import cli
from llama_demo.checkpoints import gguf
from tests.checkpoints import meta_model
from tests.checkpoints.meta_model import Shape
from tests.hub_server import Behaviour, pushing

IDS = torch.tensor([[1, 40, 77, 120, 55, 301]])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    with pushing(tmp_path, monkeypatch) as behaviour:
        yield behaviour


def plain(folder: Path, dtype: Any = "auto") -> Any:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def logits(model: Any, ids: torch.Tensor = IDS, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = model(ids, **options).logits.float()
    return made


def saved(model: Path | str, folder: Path, *options: str) -> Any:
    assert cli.main(["save", str(model), str(folder), *options], {}) == 0
    return plain(folder)


def test_a_folder_is_saved_in_another_type_and_transformers_rounds_to_the_same(
    tiny_folder: Path, tmp_path: Path
) -> None:
    half = saved(tiny_folder, tmp_path / "half", "--dtype", "bfloat16")
    assert half.dtype == torch.bfloat16
    assert torch.equal(logits(half), logits(plain(tiny_folder, torch.bfloat16)))
    assert torch.equal(logits(saved(tiny_folder, tmp_path / "same")), logits(plain(tiny_folder)))


def test_an_added_padding_token_gets_a_row_of_its_own_and_changes_no_text(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    padded = saved(tiny_folder, tmp_path / "padded", "--pad-token", "<pad>")
    rows = plain(tiny_folder).config.vocab_size
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "padded"))
    assert tokenizer.pad_token_id == padded.config.pad_token_id == padded.generation_config.pad_token_id == rows
    assert tokenizer.encode("The harbour") == AutoTokenizer.from_pretrained(str(tiny_folder)).encode("The harbour")
    whole = logits(plain(tiny_folder))
    assert torch.allclose(logits(padded)[..., :rows], whole, atol=1e-5)
    embedding = padded.get_input_embeddings().weight
    assert torch.allclose(embedding[rows], embedding[:rows].mean(0), atol=1e-6)
    batch = torch.cat([torch.full((1, 3), rows), IDS], dim=1)
    mask = torch.cat([torch.zeros(1, 3), torch.ones(1, 6)], dim=1).long()
    alone = logits(padded, batch, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
    assert torch.allclose(alone[:, 3:, :rows], whole, atol=1e-4)


def test_a_padding_token_that_is_there_is_named_and_nothing_added(tiny_folder: Path, tmp_path: Path) -> None:
    named = saved(tiny_folder, tmp_path / "named", "--pad-token", "<|endoftext|>")
    assert named.config.pad_token_id == 0
    assert named.config.vocab_size == plain(tiny_folder).config.vocab_size
    assert torch.equal(logits(named), logits(plain(tiny_folder)))


def test_pretraining_tp_is_written_and_the_engine_then_computes_with_it(tiny_folder: Path, tmp_path: Path) -> None:
    from llama_demo.engines.transformers import TransformersEngine

    assert saved(tiny_folder, tmp_path / "sliced", "--pretraining-tp", "2").config.pretraining_tp == 2
    engine = TransformersEngine(tmp_path / "sliced", name="sliced", eos_ids=(), context_tokens=128)
    try:
        assert type(engine._model.lm_head).__name__ == "ByRows"
    finally:
        engine.close()


def test_metas_own_format_is_saved_from_the_original_numbers(tmp_path: Path, tiny_sentencepiece_folder: Path) -> None:
    shape, folder = Shape(kv_heads=2), tmp_path / "llama-2-tiny"
    whole = meta_model.write(folder, shape, tiny_sentencepiece_folder / "tokenizer.model", shards=2)
    (folder / "LICENSE.txt").write_text("theirs")
    model = saved(folder, tmp_path / "saved", "--pad-token", "<pad>")
    judge = meta_model.logits(shape, whole, IDS[0])
    assert torch.allclose(logits(model)[0, :, : judge.shape[1]], judge, atol=1e-4)
    assert (tmp_path / "saved" / "LICENSE.txt").read_text() == "theirs"


def rendered(folder: Path) -> str:
    from transformers import AutoTokenizer

    assert "[INST]" in (folder / "chat_template.jinja").read_text()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    text: str = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    return text


def test_a_chat_model_from_the_hub_is_saved_with_its_template_by_its_name_in_the_list(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    folder, file = tmp_path / "snapshots" / ("0123456789" * 4), tmp_path / "models.toml"
    meta_model.write(folder, Shape(), tiny_sentencepiece_folder / "tokenizer.model")
    file.write_text(f'[[model]]\nname = "llama-2-7b-chat"\npath = "{folder}"\nformat = "meta"\ngood_for = "x"\n')
    saved("llama-2-7b-chat", tmp_path / "saved", "--catalog", str(file))
    assert rendered(tmp_path / "saved") == "<s>[INST] Hello [/INST]"


def test_a_chat_model_whose_gguf_file_has_no_template_is_saved_with_one(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    gguf.write_gguf(tiny_sentencepiece_folder, tmp_path / "llama-2-7b-chat.gguf", to="f16")
    saved(tmp_path / "llama-2-7b-chat.gguf", tmp_path / "saved")
    assert rendered(tmp_path / "saved") == "<s>[INST] Hello [/INST]"


def test_a_template_of_the_models_own_is_saved_as_it_is(tmp_path: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "llama-2-chat")
    saved(tmp_path / "llama-2-chat", tmp_path / "saved")
    assert not (tmp_path / "saved" / "chat_template.jinja").exists()


@pytest.mark.parametrize("option", [("--dtype", "4-bit"), ("--pretraining-tp", "-1"), ("--pretraining-tp", "65")])
def test_a_wrong_option_leaves_nothing(option: tuple[str, str], tiny_folder: Path, tmp_path: Path) -> None:
    assert cli.main(["save", str(tiny_folder), str(tmp_path / "made"), *option], {}) == 2
    assert not (tmp_path / "made").exists()


def gated(tmp_path: Path, folder: Path) -> list[str]:
    """The options with which `ours` is a local copy under Llama 2's licence."""
    file = tmp_path / "models.toml"
    licence = 'licence = "Llama 2 Community License"\nlink = "https://x.org/licence"\n'
    file.write_text(f'[[model]]\nname = "ours"\npath = "{folder}"\nformat = "hf"\ngood_for = "x"\n{licence}')
    return ["ours", "--catalog", str(file)]


def test_a_push_is_private_with_card_and_licence_once_somebody_has_confirmed(
    hub: Behaviour, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = gated(tmp_path, tiny_folder)
    arguments = ["save", name, str(tmp_path / "made"), *options, "--push", "somebody/made"]
    assert cli.main(arguments, {}) == 2
    out, err = capsys.readouterr()
    assert "https://x.org/licence" in out
    assert "Llama 2 Community License" in err
    assert not hub.pushed
    assert not (tmp_path / "made").exists()
    assert cli.main([*arguments, "--yes"], {}) == 0
    files = hub.pushed["somebody/made"]
    assert hub.private["somebody/made"]
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "NOTICE"} <= set(files)
    card = files["README.md"].decode()
    assert 'license: "llama2"' in card
    assert "https://x.org/licence" in card
    (tmp_path / "pulled").mkdir()
    for file, content in files.items():
        (tmp_path / "pulled" / file).write_bytes(content)
    assert torch.equal(logits(plain(tmp_path / "pulled")), logits(plain(tiny_folder)))


def test_on_a_terminal_it_asks_first(
    hub: Behaviour, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = ["", "no", "y"]

    def ask(question: str) -> str:
        asked.append(question)
        return answers.pop(0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)
    arguments = ["save", str(tiny_folder), str(tmp_path / "made"), "--push", "somebody/made"]
    assert [cli.main(arguments, {}) for _ in range(2)] == [2, 2]
    assert not hub.pushed
    assert cli.main(arguments, {}) == 0
    assert hub.private["somebody/made"]
    assert "somebody/made (private)" in asked[0]


def test_the_card_says_what_was_changed(tiny_folder: Path, tmp_path: Path) -> None:
    saved(tiny_folder, tmp_path / "made", "--pad-token", "<pad>", "--pretraining-tp", "2", "--dtype", "float16")
    card = (tmp_path / "made" / "README.md").read_text()
    for said in ("float16", "'<pad>'", "pretraining_tp is 2", "not known"):
        assert said in card
    assert json.loads((tmp_path / "made" / "config.json").read_text())["torch_dtype"] == "float16"

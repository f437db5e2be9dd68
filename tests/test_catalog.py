from __future__ import annotations

from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED, choose_default, read_catalog
from llama_demo.errors import BadCatalog, InvalidSetting, UnknownModel
from llama_demo.messages import messages
from llama_demo.reasons import Reason


def test_the_embedded_model_is_there_and_is_the_default() -> None:
    catalog, default = read_catalog("")
    assert default == EMBEDDED.name
    assert catalog.find(EMBEDDED.name) is EMBEDDED


@pytest.mark.parametrize("name", ["smollm2-135m-instrct", "SmolLM2", "x" * 10_000, "\ud800", ""])
def test_an_unknown_name_is_refused_with_the_nearest_there_is(name: str) -> None:
    catalog, default = read_catalog("")
    with pytest.raises(UnknownModel) as caught:
        catalog.for_visitors(default).find(name)
    assert caught.value.nearest == EMBEDDED.name


def test_an_unknown_model_to_start_with_is_refused() -> None:
    with pytest.raises(UnknownModel):
        read_catalog("llama-9")


def test_the_owners_own_folder_comes_first_and_keeps_the_embedded_model_beside_it(tiny_folder: Path) -> None:
    catalog, default = read_catalog(str(tiny_folder))
    assert default == "tiny-llama"
    assert catalog.find(default).path == tiny_folder
    assert catalog.find(EMBEDDED.name) is EMBEDDED


def test_the_owners_own_gguf_file_is_an_entry(tmp_path: Path) -> None:
    file = tmp_path / "My-Model.gguf"
    file.write_bytes(b"GGUF")
    catalog, default = read_catalog(str(file))
    assert default == "my-model"
    assert catalog.find(default).format == "gguf"


@pytest.mark.parametrize("name", ["no/such/folder", "missing.gguf"])
def test_a_path_that_is_no_model_is_refused_saying_what_is_expected(name: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_catalog(name)
    assert caught.value.expected == Reason("expected.model_here")


# The family, as `llama2.md` of its makers has it: parameters, layers, key-value heads, size of a head.
FAMILY = {
    "7b": (6_738_415_616, 32, 32, 128),
    "13b": (13_015_864_320, 40, 40, 128),
    "70b": (68_976_648_192, 80, 8, 128),
}


@pytest.mark.parametrize("size", FAMILY)
@pytest.mark.parametrize("kind", ["", "-chat"])
@pytest.mark.parametrize("form", ["", "-hf"])
def test_every_one_of_the_twelve_is_there_with_its_shape_and_link(size: str, kind: str, form: str) -> None:
    entry = read_catalog("")[0].find(f"llama-2-{size}{kind}{form}")
    assert (entry.parameters, entry.layers, entry.kv_heads, entry.head_size) == FAMILY[size]
    assert entry.repo == f"meta-llama/Llama-2-{size}{kind}{form}"
    assert (entry.format, entry.access) == ("hf" if form else "meta", "gated")
    assert entry.link == f"https://huggingface.co/{entry.repo}"
    assert entry.context_tokens == 4096


def test_every_entry_says_what_it_is_good_for_and_its_licence() -> None:
    words = messages()
    for entry in read_catalog("")[0].entries:
        assert words.sentence(entry.good_for) != entry.good_for
        assert entry.licence
        assert entry.parameters


def test_the_owners_catalog_comes_first_and_replaces_what_has_its_names(tmp_path: Path, tiny_folder: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'[[model]]\nname = "llama-2-7b"\npath = "{tiny_folder}"\nformat = "hf"\ngood_for = "Our own."\n')
    catalog, default = read_catalog("", file)
    assert catalog.entries[0].path == tiny_folder
    assert [entry.name for entry in catalog.entries].count("llama-2-7b") == 1
    assert [entry.name for entry in catalog.for_visitors(default).entries] == [EMBEDDED.name, "llama-2-7b"]
    assert messages().sentence(catalog.entries[0].good_for) == "Our own."


def test_visitors_see_only_what_the_owner_allows(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    body = '\n[[model]]\nname = "mine"\nrepo = "a/b"\nformat = "hf"\ngood_for = "x"\n'
    body += "".join(f"{name} = 1\n" for name in ("parameters", "layers", "kv_heads", "head_size"))
    file.write_text('visitors = ["tinyllama-1.1b-chat"]' + body)
    catalog, _ = read_catalog("mine", file)
    shown = [entry.name for entry in catalog.for_visitors("mine").entries]
    assert shown == ["mine", "tinyllama-1.1b-chat"]
    with pytest.raises(UnknownModel):
        catalog.for_visitors("mine").find("llama-2-7b")
    file.write_text('# Ours.\n\nvisitors = ["tinylama"]' + body)
    with pytest.raises(BadCatalog) as caught:
        read_catalog("", file)
    assert (caught.value.line, caught.value.field) == (3, "visitors")


def test_a_folder_in_metas_format_is_an_entry(tmp_path: Path) -> None:
    (tmp_path / "Llama-2-7B").mkdir()
    (tmp_path / "Llama-2-7B" / "params.json").write_text("{}")
    catalog, default = read_catalog(str(tmp_path / "Llama-2-7B"))
    assert (default, catalog.find(default).format) == ("llama-2-7b", "meta")


@pytest.mark.parametrize(
    ("has_gpu", "ready", "chosen"),
    [
        (True, {"llama-2-7b-chat-hf", "tinyllama-1.1b-chat"}, "llama-2-7b-chat-hf"),
        (False, {"llama-2-7b-chat-hf", "tinyllama-1.1b-chat"}, "tinyllama-1.1b-chat"),
        (True, {"llama-2-7b-chat-gguf"}, "llama-2-7b-chat-gguf"),
        (False, set(), EMBEDDED.name),
        (True, set(), EMBEDDED.name),
    ],
)
def test_the_default_is_the_best_that_runs_without_further_steps(has_gpu: bool, ready: set[str], chosen: str) -> None:
    entries = read_catalog("")[0].entries
    assert choose_default(entries, has_gpu=has_gpu, is_ready=lambda entry: entry.name in ready).name == chosen

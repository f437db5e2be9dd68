from __future__ import annotations

from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED, read_catalog
from llama_demo.errors import InvalidSetting, UnknownModel


def test_the_embedded_model_is_there_and_is_the_default() -> None:
    catalog, default = read_catalog("")
    assert default == EMBEDDED.name
    assert catalog.find(EMBEDDED.name) is EMBEDDED


@pytest.mark.parametrize("name", ["smollm2-135m-instrct", "SmolLM2", "x" * 10_000, "\ud800", ""])
def test_an_unknown_name_is_refused_with_the_nearest_there_is(name: str) -> None:
    catalog, _ = read_catalog("")
    with pytest.raises(UnknownModel) as caught:
        catalog.find(name)
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
    assert "config.json" in caught.value.expected

"""Catalog files: what they may say, and the line that is named where they say something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_demo.catalog import read_catalog
from llama_demo.catalog_file import read_catalog_file
from llama_demo.errors import BadCatalog

GOOD = {
    "name": "mine",
    "repo": "me/Mine",
    "format": "hf",
    "good_for": "Stories: 안녕.",
    "parameters": 1000,
    "layers": 2,
    "kv_heads": 2,
    "head_size": 32,
}


def toml(*entries: dict[str, Any], head: str = "") -> str:
    blocks = ["\n".join(f"{name} = {json.dumps(value)}" for name, value in entry.items()) for entry in entries]
    return head + "".join(f"[[model]]\n{block}\n\n" for block in blocks)


def written(folder: Path, text: str, name: str = "models.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def bad(path: Path) -> BadCatalog:
    with pytest.raises(BadCatalog) as caught:
        read_catalog_file(path)
    return caught.value


@pytest.mark.parametrize("name", ["models.toml", "models.json"])
def test_an_entry_is_read_with_its_defaults(name: str, tmp_path: Path) -> None:
    document = {"visitors": ["mine"], "model": [GOOD]}
    text = json.dumps(document) if name.endswith("json") else toml(GOOD, head='visitors = ["mine"]\n')
    file = read_catalog_file(written(tmp_path, text, name))
    (entry,) = file.entries
    assert (entry.name, entry.title, entry.access, entry.good_for) == ("mine", "mine", "open", "Stories: 안녕.")
    assert file.visitors == ("mine",)


def test_a_path_is_read_from_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    entry = {"name": "mine", "path": "weights", "format": "meta", "good_for": "Trying."}
    (read,) = read_catalog_file(written(tmp_path, toml(entry))).entries
    assert (read.path, read.access) == (tmp_path / "weights", "local")


@pytest.mark.parametrize(
    ("change", "field", "line"),
    [
        ({"name": "Mine"}, "name", 13),
        ({"repo": "just-a-name"}, "repo", 14),
        ({"format": "onnx"}, "format", 15),
        ({"parameters": -1}, "parameters", 17),
        ({"parameters": True}, "parameters", 17),
        ({"layers": "two"}, "layers", 18),
        ({"head_size": 1.5}, "head_size", 20),
        ({"link": "javascript:alert(1)"}, "link", 21),
        ({"file": "../../etc/passwd.gguf"}, "file", 21),
        ({"colour": "red"}, "colour", 21),
        ({"access": "local"}, "access", 21),
        ({"path": "nowhere"}, "repo", 12),
        ({"format": "gguf"}, "file", 12),
        ({"name": "first"}, "name", 13),
    ],
)
@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_the_line_and_the_field_at_fault_are_named(
    change: dict[str, Any], field: str, line: int, suffix: str, tmp_path: Path
) -> None:
    entries = [GOOD | {"name": "first"}, GOOD | change]
    if suffix == "toml":
        text = toml(*entries, head="# mine\n")
    else:
        # The same lines: a head, then for each entry a brace's line, a line a field, and one more.
        blocks = ["{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in e.items()) for e in entries]
        text = '{"model": [\n' + "},\n\n".join(blocks) + "\n}]}"
    error = bad(written(tmp_path, text, f"models.{suffix}"))
    assert (error.field, error.line) == (field, line), error


@pytest.mark.parametrize("field", ["name", "format", "good_for"])
def test_a_missing_field_is_named_with_its_entrys_line(field: str, tmp_path: Path) -> None:
    entry = {name: value for name, value in GOOD.items() if name != field}
    error = bad(written(tmp_path, toml(GOOD | {"name": "first"}, entry)))
    assert (error.field, error.line, error.problem) == (field, 11, "is missing")


def test_a_shape_that_only_a_download_would_tell_is_asked_for(tmp_path: Path) -> None:
    entry = {name: value for name, value in GOOD.items() if name != "layers"}
    assert "layers" in bad(written(tmp_path, toml(entry))).field


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.toml", "[[model]]\nname = \n", 2),
        ("a.toml", "x = 1\n\n[[model", 3),
        ("a.json", '{"model": [\n{"name": }]}', 2),
        ("a.json", "[1]", 1),
        ("a.json", "[" * 100_000, 1),
        ("a.toml", "", 1),
        ("a.toml", "model = []", 1),
        ("a.toml", "model = [1]", 1),
        ("a.toml", "\n\nsecret = 1\n", 3),
        ("a.toml", "visitors = [1]\n[[model]]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in GOOD.items()), 1),
    ],
)
def test_a_file_that_is_no_catalog_is_refused_with_a_line(name: str, text: str, line: int, tmp_path: Path) -> None:
    assert bad(written(tmp_path, text, name)).line == line


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in bad(tmp_path / "nothing.toml").problem
    (tmp_path / "latin.toml").write_bytes(b"# ok\n# \xe9t\xe9\n")
    assert bad(tmp_path / "latin.toml").line == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(
    entries=st.lists(
        st.dictionaries(st.sampled_from([*GOOD, "path", "file", "x"]), st.none() | st.integers() | st.text(max_size=9)),
        max_size=3,
    )
)
def test_any_json_is_read_or_refused_with_a_line(entries: list[Any], tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"model": entries}, indent=1), "any.json")
    try:
        read_catalog_file(path)
    except BadCatalog as error:
        found = error
        assert 1 <= found.line <= path.read_text().count("\n") + 1


FAR = {"name": "far", "good_for": "Elsewhere.", "base_url": "https://far.example:8000/v1"}


def test_an_entry_may_be_a_server_and_its_model_has_the_same_name_where_none_is_said(tmp_path: Path) -> None:
    plain, full = read_catalog_file(
        written(
            tmp_path,
            toml(FAR, {**FAR, "name": "other", "remote_model": "org/Far-70B", "token_variable": "FAR_TOKEN"}),
        )
    ).entries
    assert (plain.format, plain.base_url, plain.remote_model) == ("remote", FAR["base_url"], "far")
    assert (full.remote_model, full.token_variable, full.path, full.repo) == ("org/Far-70B", "FAR_TOKEN", None, "")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base_url": "far.example/v1"}, "base_url"),
        ({"base_url": "file:///etc/passwd"}, "base_url"),
        ({"base_url": "https://me:secret@far.example/v1"}, "base_url"),
        ({"base_url": "https://far.example/v1?token=secret"}, "base_url"),
        ({"base_url": "https://far.example/v1#x"}, "base_url"),
        ({"base_url": "https://far.example/v1\r\nX: y"}, "base_url"),
        ({"token_variable": "hf_abc def"}, "token_variable"),
        ({"remote_model": "two words"}, "remote_model"),
        ({"token": "secret"}, "token"),
        ({"repo": "me/Mine"}, "repo"),
        ({"format": "remote"}, "format"),
        ({"path": "weights"}, "path"),
        ({"base_url": None, "token_variable": "FAR_TOKEN"}, "base_url"),
    ],
)
def test_a_servers_entry_that_cannot_be_is_refused(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    entry = {name: value for name, value in {**FAR, **change}.items() if value is not None}
    assert bad(written(tmp_path, toml(entry))).field == field


def test_no_adapter_is_put_on_a_servers_model(tmp_path: Path) -> None:
    adapter = {"name": "mine", "adapter": "me/Adapter", "base": "far", "good_for": "Mine.", "parameters": 9}
    with pytest.raises(BadCatalog) as caught:
        read_catalog("", written(tmp_path, toml(FAR, adapter)))
    assert caught.value.field == "base"

"""A head taken out of the app: as a folder, an archive, and to a stand-in Hub by real `huggingface_hub` calls."""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_demo import hub_push
from llama_demo.catalog import EMBEDDED, Entry
from llama_demo.checkpoints.llama import read_folder
from llama_demo.classify import head as heads
from llama_demo.classify.results import Exported, Pushed, Working
from llama_demo.classify.sharing import Sharing
from llama_demo.errors import DiskFull, InvalidParameter, TargetExists
from llama_demo.leasing import Stopper
from llama_demo.messages import messages
from llama_demo.push_errors import LicenceNotConfirmed
from tests.classify.test_export import make_head, theirs
from tests.hub_server import Behaviour, pushing

HEAD = make_head(name="mine")
GATED = replace(EMBEDDED, name="llama-2-7b", access="gated", licence="Llama 2 Community License", link="https://x.org")


def made(folder: Path, entry: Entry = EMBEDDED) -> Sharing:
    return Sharing(find=lambda _, __: HEAD, home=lambda _: entry, checkpoint=lambda _, __: read_folder(folder))


def everything(updates: AsyncGenerator[Any, None]) -> list[Any]:
    async def read() -> list[Any]:
        async with aclosing(updates):
            return [update async for update in updates]

    return asyncio.run(read())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    with pushing(tmp_path, monkeypatch) as behaviour:
        yield behaviour


def test_an_archive_holds_the_folder_that_plain_transformers_loads(tiny_folder: Path, tmp_path: Path) -> None:
    share = made(tiny_folder)
    *_, last = everything(share.export("mine", tmp_path / "out" / "mine.zip", messages()))
    assert last == Exported(tmp_path / "out" / "mine.zip")
    everything(share.export("mine", tmp_path / "folder", messages()))
    with zipfile.ZipFile(last.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert {file.name: file.read_bytes() for file in (tmp_path / "unpacked" / "mine").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "folder").iterdir()
    }
    assert theirs(tmp_path / "folder", ["boats"], "right").logits.shape == (1, 3)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.zip"]
    with pytest.raises(TargetExists):
        everything(share.export("mine", tmp_path / "folder", messages()))


def test_a_full_disk_or_a_stop_leaves_nothing_behind(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, out = made(tiny_folder), tmp_path / "out"
    stopper = Stopper()
    stopper.stop()
    for target in (out / "mine.zip", out / "mine"):
        assert not any(
            isinstance(update, Exported)
            for update in everything(share.export("mine", target, messages(), stopper=stopper))
        )
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for target in (out / "mine.zip", out / "mine"):
        with pytest.raises(DiskFull):
            everything(share.export("mine", target, messages()))
    assert list(out.iterdir()) == []


def test_a_head_is_pushed_alone_and_privately(tiny_folder: Path, hub: Behaviour, tmp_path: Path) -> None:
    updates = everything(made(tiny_folder, GATED).push("mine", "somebody/mine", messages()))
    assert isinstance(updates[-1], Pushed)
    assert updates[-1].address.endswith("/somebody/mine")
    assert all(isinstance(update, Working) for update in updates[:-1])
    files = hub.pushed["somebody/mine"]
    assert set(files) == {"README.md", "mine.safetensors"}
    assert hub.private == {"somebody/mine": True}
    fetched = tmp_path / "fetched.safetensors"
    fetched.write_bytes(files["mine.safetensors"])
    features = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    assert np.array_equal(heads.load(fetched).scores(features), HEAD.scores(features))


def test_a_name_that_is_none_is_refused_before_anything_is_written(hub: Behaviour) -> None:
    def fetched(*_: object) -> Any:
        raise AssertionError

    share = Sharing(find=lambda _, __: HEAD, home=lambda _: EMBEDDED, checkpoint=fetched)
    with pytest.raises(InvalidParameter):
        everything(share.push("mine", "no name", messages(), with_backbone=True))
    assert not hub.private


def test_with_its_backbone_only_after_its_licence_was_confirmed(tiny_folder: Path, hub: Behaviour) -> None:
    gated, words = made(tiny_folder, GATED), messages()
    confirm = gated.to_confirm("mine")
    assert confirm is not None
    assert confirm.name == GATED.licence
    with pytest.raises(LicenceNotConfirmed) as raised:
        everything(gated.push("mine", "somebody/mine", words, with_backbone=True))
    assert raised.value.licence == GATED.licence
    assert not hub.pushed
    assert not hub.private
    everything(gated.push("mine", "somebody/mine", words, with_backbone=True, licence_confirmed=True))
    assert {"NOTICE", "config.json", "model.safetensors", "README.md"} <= set(hub.pushed["somebody/mine"])


def test_a_free_backbone_needs_no_confirmation_and_an_unknown_licence_does(tiny_folder: Path) -> None:
    assert made(tiny_folder).to_confirm("mine") is None
    local = replace(EMBEDDED, access="local", licence="", link="")
    for entry in (local, replace(EMBEDDED, licence="CC BY-NC-SA 4.0"), replace(EMBEDDED, access="gated")):
        assert made(tiny_folder, entry).to_confirm("mine") is not None


def test_a_stopped_push_leaves_the_hub_as_it_was(
    tiny_folder: Path, hub: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopper = Stopper()
    push = hub_push.push

    def stopping(*args: Any, **options: Any) -> Any:
        stopper.stop()
        return push(*args, **options)

    monkeypatch.setattr(hub_push, "push", stopping)
    updates = everything(made(tiny_folder).push("mine", "somebody/mine", messages(), stopper=stopper))
    assert not any(isinstance(update, Pushed) for update in updates)
    assert not hub.pushed

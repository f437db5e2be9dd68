"""Kept classifiers on the page's handlers: what they are, taken away and brought back, private to whoever made them."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_demo.classify import head as heads
from llama_demo.classify.head import Backbone, Head
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.ui.classify_kept import ClassifyKept
from llama_demo.ui.classify_train import ClassifyTrain
from llama_demo.ui.classify_use import LABELS, ClassifyUse
from llama_demo.visitors import Role, Visitor
from tests.ui.test_classify_train import given as training
from tests.ui.test_classify_train import views as train
from tests.ui.test_classify_use import given as using

ASKED = {"id": "one", "language": "en"}
OWNER, ANNA, BEN = Visitor("o", Role.OWNER), Visitor("a", Role.ANONYMOUS), Visitor("b", Role.ANONYMOUS)


@pytest.fixture(scope="module")
def public(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A public server's runtime."""
    cache = tmp_path_factory.mktemp("public")
    given = {"model": str(tiny_folder), "cache_dir": str(cache), "memory_gb": "2", "public": "true"}
    with Runtime(read_settings(given, {})) as made:
        yield made


def classified(runtime: Runtime, name: str, visitor: Visitor) -> str:
    async def read() -> list[str]:
        use = ClassifyUse(runtime)
        return [view async for view in use.classify(ASKED, using(classifier=name, text="the net"), visitor)]

    return asyncio.run(read())[-1]


@pytest.mark.slow
def test_a_head_is_taken_away_deleted_and_brought_back_with_the_same_scores(runtime: Runtime) -> None:
    assert 'class="figures"' in train(ClassifyTrain(runtime), training(name="roundtrip"))[-1]
    kept = ClassifyKept(runtime)
    about, file = kept.describe(ASKED, "roundtrip", OWNER)
    assert 'class="figures"' in about
    assert file is not None
    assert Path(file).name == "roundtrip.safetensors"
    before = classified(runtime, "roundtrip", OWNER)
    assert "is deleted" in kept.remove(ASKED, "roundtrip", OWNER)
    assert "no classifier named roundtrip" in classified(runtime, "roundtrip", OWNER)
    said, name = kept.add(ASKED, file, "", OWNER)
    assert name == "roundtrip"
    assert "is in the list" in said
    assert classified(runtime, "roundtrip", OWNER) == before
    assert "already" in kept.add(ASKED, file, "", OWNER)[0]
    assert kept.add(ASKED, file, "second", OWNER)[1] == "second"


def test_what_is_no_head_is_refused_when_it_is_uploaded(runtime: Runtime, tmp_path: Path) -> None:
    save_file({"model.norm.weight": np.ones(4, np.float32)}, tmp_path / "empty.safetensors")
    (tmp_path / "model.bin").write_bytes(b"\x80\x04pickle")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, words in (("empty.safetensors", "random"), ("model.bin", "pickled"), ("text.safetensors", "safetensors")):
        said, added = ClassifyKept(runtime).add(ASKED, str(tmp_path / name), "", OWNER)
        assert 'class="error"' in said
        assert words in said
        assert added is None


def test_a_file_with_a_made_up_report_is_shown_without_one(runtime: Runtime) -> None:
    path = runtime.classification.heads.path("strange")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"labels": "<b>", "accuracy": "high", "confusion": [[None]]}
    weight = np.ones((2, 128), np.float32)
    heads.save(Head("strange", ("<i>", "b"), weight, "{text}", Backbone("m"), figures=figures), path)
    about, _ = ClassifyKept(runtime).describe(ASKED, "strange", OWNER)
    assert "no report" in about
    assert "<i>" not in about


@pytest.mark.slow
def test_a_head_is_exported_with_its_model_by_the_owner_alone(runtime: Runtime) -> None:
    assert 'class="figures"' in train(ClassifyTrain(runtime), training(name="exported"))[-1]

    async def export(visitor: Visitor) -> tuple[str, str | None]:
        return [each async for each in ClassifyKept(runtime).export(ASKED, "exported", visitor)][-1]

    said, file = asyncio.run(export(OWNER))
    assert file is not None, said
    with zipfile.ZipFile(file) as archive:
        assert {"config.json", "README.md"} <= {Path(name).name for name in archive.namelist()}
    said, file = asyncio.run(export(ANNA))
    assert file is None
    assert 'class="error"' in said


@pytest.mark.slow
def test_on_a_public_server_a_head_is_its_makers_until_the_owner_publishes_one(public: Runtime) -> None:
    kept = ClassifyKept(public)
    assert 'class="figures"' in train(ClassifyTrain(public), training(name="annas"), ANNA)[-1]
    assert kept.names(ANNA) == ["annas"]
    assert "bar-value" in classified(public, "annas", ANNA)
    for other in (BEN, OWNER):
        assert kept.names(other) == []
        assert [name for _, name in ClassifyUse(public).classifiers("en", other)] == [LABELS]
        assert "no classifier named annas" in classified(public, "annas", other)
        assert "no classifier" in kept.describe(ASKED, "annas", other)[0]
        assert "no classifier" in kept.remove(ASKED, "annas", other)
    assert "owner" in kept.publish(ASKED, "annas", ANNA)
    assert 'class="figures"' in train(ClassifyTrain(public), training(name="fine"), OWNER)[-1]
    assert kept.names(BEN) == []
    assert "Only you see it" in kept.describe(ASKED, "fine", OWNER)[0]
    assert "Everybody" in kept.publish(ASKED, "fine", OWNER)
    assert kept.names(BEN) == ["fine"]
    assert "bar-value" in classified(public, "fine", BEN)
    assert 'class="error"' in kept.remove(ASKED, "fine", BEN)

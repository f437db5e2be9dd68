"""The shelves on which heads are kept: everybody's, and a visitor's own on a public server."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from llama_demo.classify import head as heads
from llama_demo.classify import store
from llama_demo.classify.head import Backbone, Head
from llama_demo.classify.store import KEPT_SECONDS, Heads
from llama_demo.errors import NameTaken, UnknownClassifier
from llama_demo.reasons import Reason
from llama_demo.visitor_errors import HeadTooLarge, OwnerOnly, TooManyHeads
from llama_demo.visitors import Role, Visitor
from tests.waiting import wait_until

ANNA, BEN = Visitor("a", Role.ANONYMOUS), Visitor("../b", Role.SIGNED_IN)
OWNER = Visitor("o", Role.OWNER)


def head(name: str) -> Head:
    return Head(name, ("yes", "no"), np.eye(2, dtype=np.float32), "{text}", Backbone("m"))


def keep(kept: Heads, name: str, visitor: Visitor | None = None) -> Path:
    with kept.reserved(name, visitor) as path:
        heads.save(head(name), path)
    return path


@pytest.fixture
def public(tmp_path: Path) -> Heads:
    return Heads(tmp_path, private=True)


def test_a_visitors_head_is_nobody_elses(public: Heads, tmp_path: Path) -> None:
    path = keep(public, "mine", ANNA)
    assert path.is_relative_to(tmp_path)
    assert public.names(ANNA) == ["mine"]
    assert public.find("mine", ANNA).name == "mine"
    for other in (BEN, OWNER, None):
        assert public.names(other) == []
        with pytest.raises(UnknownClassifier) as caught:
            public.find("mine", other)
        assert caught.value.problem.key == "classifier.none"
        with pytest.raises(UnknownClassifier):
            public.remove("mine", other)
    assert keep(public, "mine", BEN) != path
    assert keep(public, "mine", BEN.__class__("../c", Role.ANONYMOUS)).is_relative_to(tmp_path / store.SHELVES)


def test_on_a_private_server_all_share_one_shelf(tmp_path: Path) -> None:
    kept = Heads(tmp_path)
    keep(kept, "ours", OWNER)
    assert kept.names() == kept.names(BEN) == kept.own(OWNER) == ["ours"]
    with pytest.raises(UnknownClassifier) as caught:
        kept.find("hours")
    assert caught.value.problem == Reason("classifier.near", nearest="ours")


def test_only_the_owner_publishes_and_then_everybody_has_it(public: Heads) -> None:
    keep(public, "fine", OWNER)
    assert public.names(ANNA) == []
    with pytest.raises(OwnerOnly):
        public.publish("fine", ANNA)
    public.publish("fine", OWNER)
    assert public.find("fine", ANNA).name == "fine"
    assert public.own(ANNA) == []
    assert public.published("fine")
    with pytest.raises(OwnerOnly):
        public.remove("fine", ANNA)
    with pytest.raises(NameTaken):
        keep(public, "fine", ANNA)
    public.remove("fine", OWNER)
    assert public.names(ANNA) == []


def test_a_visitor_cannot_publish_by_naming_another_folder(public: Heads) -> None:
    with pytest.raises(Exception, match="name"):
        public.path("../fine", ANNA)


def test_a_visitor_has_so_many_heads_and_the_owner_any_number(public: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_HEADS", 2)
    for name in ("one", "two"):
        keep(public, name, ANNA)
    with pytest.raises(TooManyHeads):
        keep(public, "three", ANNA)
    public.remove("one", ANNA)
    with public.reserved("three", ANNA), pytest.raises(TooManyHeads):  # one that is being made counts
        keep(public, "four", ANNA)
    for name in ("one", "two", "three"):
        keep(public, name, OWNER)


def test_an_uploaded_head_is_bounded_in_size(public: Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads.save(head("large"), tmp_path / "large.safetensors")
    monkeypatch.setattr(store, "MOST_HEAD_BYTES", 10)
    with pytest.raises(HeadTooLarge):
        public.add(tmp_path / "large.safetensors", "large.safetensors", visitor=ANNA)
    assert public.add(tmp_path / "large.safetensors", "large.safetensors", "own", OWNER).name == "own"


def test_what_a_visitor_has_not_used_for_long_is_gone(tmp_path: Path) -> None:
    now = 1_000_000.0
    kept = Heads(tmp_path, private=True, clock=lambda: now)
    paths = {visitor: keep(kept, "old", visitor) for visitor in (ANNA, BEN, OWNER)}
    for path in paths.values():
        os.utime(path, (now, now))
    now += KEPT_SECONDS - 1
    assert kept.find("old", BEN).name == "old"  # which counts as a use
    os.utime(paths[BEN], (now, now))
    now += 2
    assert kept.names(ANNA) == []
    assert not paths[ANNA].parent.exists()
    assert kept.names(BEN) == kept.names(OWNER) == ["old"]


def test_what_has_expired_goes_on_time_though_nobody_uses_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "EXPIRY_SECONDS", 0.01)
    kept = Heads(tmp_path, private=True)
    path = keep(kept, "old", ANNA)
    os.utime(path, (1.0, 1.0))
    try:
        wait_until(lambda: not path.exists())
    finally:
        kept.close()


def test_what_cannot_be_removed_keeps_nobody_from_the_others(public: Heads) -> None:
    path = keep(public, "mine", ANNA)
    odd = path.with_name(f"odd{heads.SUFFIX}")
    odd.mkdir()
    os.utime(odd, (1.0, 1.0))
    assert "mine" in public.names(ANNA)


def test_a_use_is_remembered(public: Heads) -> None:
    path = keep(public, "old", ANNA)
    os.utime(path, (1.0, 1.0))
    path.touch()
    used = path.stat().st_mtime
    os.utime(path, (used - 100, used - 100))
    public.find("old", ANNA)
    assert path.stat().st_mtime >= used


def test_of_too_many_shelves_together_the_longest_unused_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_KEPT", 2)
    kept = Heads(tmp_path, private=True, clock=lambda: 100.0)
    for used, name in enumerate("abc"):
        path = keep(kept, name, Visitor(name, Role.ANONYMOUS))
        os.utime(path, (float(used), float(used)))
    kept.expire()
    assert [kept.names(Visitor(name, Role.ANONYMOUS)) for name in "abc"] == [[], ["b"], ["c"]]

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_demo.classify.head import Backbone, Head, load, save
from llama_demo.errors import BadHead, BadLabels, InvalidParameter, LlamaDemoError, UntrainedHead, WrongBackbone

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(3, 16)).astype(np.float32)
PROBE = RNG.normal(size=16).astype(np.float32)
FEATURES = RNG.normal(size=(5, 16)).astype(np.float32)
HEAD = Head(
    "mine",
    ("a", "b", "ç"),
    WEIGHT,
    "Text: {text}\nLabel:",
    Backbone("tiny", "someone/tiny", "abc"),
    probe=PROBE,
    figures={"accuracy": 0.9},
)


def test_a_saved_head_comes_back_as_it_was(tmp_path: Path) -> None:
    save(HEAD, tmp_path / "mine.safetensors")
    read = load(tmp_path / "mine.safetensors")
    assert np.array_equal(read.scores(FEATURES), HEAD.scores(FEATURES))
    assert read.probe is not None
    assert np.array_equal(read.probe, PROBE)
    for field in ("name", "labels", "prompt", "backbone", "problem_type", "figures"):
        assert getattr(read, field) == getattr(HEAD, field)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


def test_a_heads_digest_tells_it_from_every_other_that_decides_otherwise() -> None:
    head = Head("a", ("yes", "no"), np.eye(2, dtype=np.float32), "{text}", Backbone("m"))
    others = [
        replace(head, labels=("no", "yes")),
        replace(head, weight=2 * head.weight),
        replace(head, prompt="{text}:"),
        replace(head, problem_type="multi_label_classification"),
        replace(head, labels=("yesno", ""), problem_type="regression"),
    ]
    assert len({head.digest, *(other.digest for other in others)}) == len(others) + 1
    assert replace(head, name="b", backbone=Backbone("other")).digest == head.digest


def test_no_length_of_a_header_is_taken_for_a_pickles_beginning(tmp_path: Path) -> None:
    path, begun = tmp_path / "mine.safetensors", set()
    for extra in range(0, 256, 8):  # the format fills headers up to 8 bytes
        save(replace(HEAD, prompt="x" * extra + "{text}"), path)
        begun.add(path.read_bytes()[0])
        assert load(path).prompt.startswith("x" * extra)
    assert 0x80 in begun


def test_scores_are_of_the_heads_kind() -> None:
    logits = FEATURES @ WEIGHT.T
    single = HEAD.scores(FEATURES)
    assert single.sum(axis=1) == pytest.approx(1.0)
    assert np.log(single[:, 0] / single[:, 1]) == pytest.approx(logits[:, 0] - logits[:, 1], abs=1e-5)
    several = replace(HEAD, problem_type="multi_label_classification").scores(FEATURES)
    assert several == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert replace(HEAD, problem_type="regression").scores(FEATURES) == pytest.approx(logits, abs=1e-5)


def test_a_file_without_the_weight_never_becomes_a_head(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    save_file({"model.norm.weight": WEIGHT}, path, metadata={"llama_demo.head": "{}"})
    with pytest.raises(UntrainedHead, match=r"head\.not_in_file, weight='score\.weight'"):
        load(path)


def test_a_pickle_is_refused_and_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    for protocol in (2, 5):
        path = tmp_path / "head.safetensors"
        path.write_bytes(pickle.dumps(Bomb(), protocol))
        with pytest.raises(BadHead, match="pickle"):
            load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(50), bytes(100), b"\xff" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(BadHead):
        load(tmp_path / "x.safetensors")
    with pytest.raises(BadHead):
        load(tmp_path / "missing.safetensors")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    save(HEAD, tmp_path / "mine.safetensors")
    whole = (tmp_path / "mine.safetensors").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(LlamaDemoError):
            load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["a", "b"]}, "head.count"),
        ({"labels": ["a", "b", "b"]}, "labels.twice"),
        ({"labels": 3}, "head.lacks"),
        ({"prompt": "no place"}, "head.name_or_prompt"),
        ({"prompt": "{text} \ud800"}, "head.name_or_prompt"),
        ({"prompt": None}, "head.name_or_prompt"),
        ({"problem_type": "magic"}, "head.kind"),
        ({"backbone": None}, "head.lacks"),
        ({"name": "../../evil"}, "head.name_or_prompt"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    config = {
        "name": "mine",
        "labels": ["a", "b", "c"],
        "prompt": "{text}",
        "problem_type": "single_label_classification",
        "backbone": {"name": "", "repo": "", "revision": ""},
    }
    path = tmp_path / "x.safetensors"
    save_file({"score.weight": WEIGHT}, path, metadata={"llama_demo.head": json.dumps(config)})
    assert load(path).labels == ("a", "b", "c")
    save_file({"score.weight": WEIGHT}, path, metadata={"llama_demo.head": json.dumps({**config, **changes})})
    with pytest.raises(BadHead) as caught:
        load(path)
    assert caught.value.problem.key == reason


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    bad = WEIGHT.copy()
    bad[1, 1] = np.inf
    with pytest.raises(BadHead, match="no_number"):
        replace(HEAD, weight=bad)
    with pytest.raises(BadLabels):
        replace(HEAD, labels=("a", "b", "a"))
    for name in ("", "a/b", "..", "x" * 65, "trailing."):
        with pytest.raises(InvalidParameter):
            replace(HEAD, name=name)


def test_another_backbone_is_told_by_what_it_makes_of_the_probe() -> None:
    HEAD.check_backbone("tiny", PROBE + 0.01 * FEATURES[0])
    with pytest.raises(WrongBackbone, match=r"backbone\.other, trained='tiny'"):
        HEAD.check_backbone("other", FEATURES[1])
    with pytest.raises(WrongBackbone, match="16"):
        HEAD.check_backbone("other", np.ones(32, np.float32))
    with pytest.raises(WrongBackbone):
        HEAD.scores(np.ones((2, 32), np.float32))

"""Pushes to a stand-in Hub by real `huggingface_hub` calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_demo import hub_push
from llama_demo.errors import InvalidParameter
from llama_demo.push_errors import MayNotWrite, NotSignedIn, PublicRepository, PushFailed
from tests.hub_server import Behaviour, Refusal, pushing

REPO = "somebody/mine"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    with pushing(tmp_path, monkeypatch) as behaviour:
        yield behaviour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "README.md").write_text("# mine\n")
    (made / "mine.safetensors").write_bytes(bytes(range(256)) * 40)
    return made


def go_on(_: int, __: int) -> None:
    """Nobody looks."""


def test_the_files_are_in_a_private_repository_byte_for_byte(hub: Behaviour, folder: Path) -> None:
    address = hub_push.push(folder, REPO, "Add mine", go_on)
    assert address is not None
    assert address.endswith(f"/{REPO}")
    assert hub.private == {REPO: True}
    assert hub.pushed == {REPO: {file.name: file.read_bytes() for file in folder.iterdir()}}
    assert hub.tokens == ["Bearer hf_of_a_test"]


def test_a_public_repository_only_where_that_was_asked_for(hub: Behaviour, folder: Path) -> None:
    hub.private[REPO] = False
    with pytest.raises(PublicRepository):
        hub_push.push(folder, REPO, "Add mine", go_on)
    assert not hub.pushed
    assert hub_push.push(folder, REPO, "Add mine", go_on, private=False) is not None
    assert set(hub.pushed[REPO]) == {"README.md", "mine.safetensors"}


def test_progress_is_told_and_a_cancelled_push_commits_nothing(hub: Behaviour, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    hub_push.push(folder, REPO, "Add mine", lambda done, total: told.append((done, total)))
    total = sum(file.stat().st_size for file in folder.iterdir())
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    hub.pushed.clear()
    for steps in range(3):
        told.clear()

        def stop(done: int, total: int, after: int = steps) -> None:
            told.append((done, total))
            if len(told) > after:
                raise KeyError

        with pytest.raises(KeyError):
            hub_push.push(folder, REPO, "Add mine", stop)
    assert not hub.pushed


@pytest.mark.parametrize(("status", "error"), [(401, NotSignedIn), (403, MayNotWrite), (404, PushFailed)])
def test_a_refusal_is_told_apart(hub: Behaviour, folder: Path, status: int, error: type[PushFailed]) -> None:
    hub.private[REPO] = True
    hub.refusals[REPO] = Refusal(status)
    with pytest.raises(error) as raised:
        hub_push.push(folder, REPO, "Add mine", go_on)
    assert type(raised.value) is error
    assert raised.value.repo == REPO


def test_a_hub_that_cannot_be_reached_and_a_name_that_is_none(
    hub: Behaviour, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", "name", "a b", "이름/model", "../up", "one/two/three", "x" * 200):
        with pytest.raises(InvalidParameter):
            hub_push.push(folder, name, "Add mine", go_on)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushFailed):
        hub_push.push(folder, REPO, "Add mine", go_on)

"""What a stranger may upload in a minute, and what of it is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_demo.api import uploads
from llama_demo.api.uploads import Uploads
from llama_demo.visitor_errors import NoRoomForUploads, TooManyRequests
from llama_demo.visitors import Role, Visitor
from tests.test_limits import Clock

STRANGER, OTHER = Visitor("a", Role.ANONYMOUS), Visitor("b", Role.ANONYMOUS)
OWNER = Visitor("o", Role.OWNER)


def test_a_stranger_uploads_so_often_a_minute_and_others_and_the_owner_are_not_held_up(tmp_path: Path) -> None:
    clock = Clock()
    made = Uploads(tmp_path, clock)
    for _ in range(uploads.A_MINUTE):
        made.begin(STRANGER)
    with pytest.raises(TooManyRequests) as caught:
        made.begin(STRANGER)
    assert caught.value.seconds == pytest.approx(60 / uploads.A_MINUTE)
    made.begin(OTHER)
    for _ in range(2 * uploads.A_MINUTE):
        made.begin(OWNER)
    clock.now += caught.value.seconds
    made.begin(STRANGER)


def test_a_stranger_uploads_so_much_a_minute_kept_or_not(tmp_path: Path) -> None:
    clock = Clock()
    made = Uploads(tmp_path, clock)
    made.begin(STRANGER)
    made.end(STRANGER, 2 * uploads.BYTES_A_MINUTE)
    with pytest.raises(TooManyRequests) as caught:
        made.begin(STRANGER)
    assert caught.value.seconds == pytest.approx(60)
    made.begin(OTHER)
    made.end(OWNER, 2 * uploads.BYTES_A_MINUTE)
    made.begin(OWNER)
    clock.now += 60
    made.begin(STRANGER)


def test_nothing_of_strangers_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Uploads(tmp_path, Clock())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=uploads.SPARE_BYTES - 1))
    with pytest.raises(NoRoomForUploads):
        made.begin(STRANGER)
    made.begin(OWNER)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=uploads.SPARE_BYTES))
    made.begin(STRANGER)

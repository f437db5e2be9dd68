"""A kept classifier put on a stand-in Hub from the page: by the owner, alone, and with its model once confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_demo.messages import messages
from llama_demo.runtime import Runtime
from llama_demo.ui.classify_push import FIELDS, ClassifyPush
from llama_demo.visitors import Role, Visitor
from tests.hub_server import Behaviour, Refusal, pushing
from tests.ui.test_classify_use import ASKED, OWNER, keep_head

STRANGER = Visitor("s", Role.ANONYMOUS)


@pytest.fixture
def hub(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    keep_head(runtime, "pushed")
    with pushing(tmp_path, monkeypatch) as behaviour:
        yield behaviour


def pushed(runtime: Runtime, visitor: Visitor = OWNER, **changed: Any) -> list[str]:
    """Every view of one push."""
    values = ("pushed", " somebody/mine ", True, False, False)
    given = {**dict(zip(FIELDS, values, strict=True)), **changed}

    async def read() -> list[str]:
        return [view async for view in ClassifyPush(runtime).push(ASKED, given, visitor)]

    return asyncio.run(read())


def test_a_head_goes_alone_and_privately_and_its_address_is_said(runtime: Runtime, hub: Behaviour) -> None:
    assert "/somebody/mine." in pushed(runtime)[-1]
    assert set(hub.pushed["somebody/mine"]) == {"README.md", "pushed.safetensors"}
    assert hub.private == {"somebody/mine": True}
    assert hub.tokens == ["Bearer hf_of_a_test"]
    pushed(runtime, repo="somebody/open", private=False)
    assert hub.private["somebody/open"] is False


def test_with_its_model_only_once_the_licence_is_confirmed(runtime: Runtime, hub: Behaviour) -> None:
    said, asks = ClassifyPush(runtime).warning(ASKED, "pushed", OWNER, with_backbone=True)
    assert asks
    assert "as its licence allows: not known" in said
    assert "Read it and confirm" in pushed(runtime, with_backbone=True)[-1]
    assert not hub.pushed
    views = pushed(runtime, with_backbone=True, confirmed=True)
    assert "/somebody/mine." in views[-1]
    assert {"config.json", "model.safetensors", "README.md"} <= set(hub.pushed["somebody/mine"])


@pytest.mark.parametrize("with_backbone", [True, False])
def test_a_head_whose_model_is_not_there_says_at_once_why_it_cannot_go(runtime: Runtime, with_backbone: bool) -> None:
    keep_head(runtime, "stray", model="llama-2-70b")
    said, asks = ClassifyPush(runtime).warning(ASKED, "stray", OWNER, with_backbone=with_backbone)
    assert "llama-2-70b, which is not in the list of models" in said
    assert not asks


def test_only_the_owner_puts_anything_there(runtime: Runtime, hub: Behaviour) -> None:
    assert 'class="error"' in pushed(runtime, STRANGER)[-1]
    said, asks = ClassifyPush(runtime).warning(ASKED, "pushed", STRANGER, with_backbone=True)
    assert 'class="error"' in said
    assert not asks
    assert not hub.pushed
    assert not hub.private


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"repo": ""}, "OWNER/NAME"),
        ({"repo": None}, "OWNER/NAME"),
        ({"name": "nobody"}, "no classifier named nobody"),
        ({"repo": "refused/mine", "private": False}, "the token may not write there"),
        ({"repo": "unknown/mine", "private": False}, messages()("models.tab")),
    ],
)
def test_what_cannot_be_put_there_is_one_sentence(
    runtime: Runtime, hub: Behaviour, changed: dict[str, Any], words: str
) -> None:
    hub.refusals |= {"refused/": Refusal(403), "unknown/": Refusal(401)}
    last = pushed(runtime, **changed)[-1]
    assert 'class="error"' in last
    assert words in last
    assert not hub.pushed

"""What the page offers an owner, and what only an owner may do on it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from llama_demo import ui
from llama_demo.space import SignIn
from llama_demo.visitors import OWNER_COOKIE
from tests.ui.scripted import scripted

PASSWORD = "correct horse"


def handler(page: Any, name: str) -> Any:
    return next(fn.fn for fn in page.fns.values() if getattr(fn.fn, "__name__", "") == name)


def from_owner(runtime: Any) -> Any:
    cookie = runtime.visitors.unlock(PASSWORD, "10.1.1.1")
    return SimpleNamespace(cookies={OWNER_COOKIE: cookie}, client=SimpleNamespace(host="10.1.1.1"), username=None)


def test_the_password_is_asked_for_only_where_there_is_one_and_is_nowhere_in_the_page() -> None:
    with_password = json.dumps(ui.build(scripted(owner_password=PASSWORD)).get_config_file(), default=str)
    assert "owner-corner" in with_password
    assert PASSWORD not in with_password
    assert "owner-corner" not in json.dumps(ui.build(scripted()).get_config_file(), default=str)


def test_a_space_without_a_password_offers_its_owner_to_sign_in_and_holds_no_secret() -> None:
    sign_in = SignIn("https://huggingface.co", "the-client", PASSWORD, "a.hf.space", "somebody")
    page = json.dumps(ui.build(scripted(public=True, space=True, sign_in=sign_in)).get_config_file(), default=str)
    assert "login/huggingface" in page
    assert PASSWORD not in page


@pytest.mark.parametrize("public", [True, False])
def test_a_public_page_says_what_it_may_be_used_for(public: bool) -> None:
    config = json.dumps(ui.build(scripted(public=public)).get_config_file(), default=str)
    assert ("use-policy" in config) == public


def test_on_a_public_page_only_the_owners_choice_loads_a_model_before_anything_is_asked() -> None:
    runtime = scripted(public=True, owner_password=PASSWORD)
    choose = handler(ui.build(runtime), "choose")
    asyncio.run(choose("tinyllama"))
    assert runtime.prepared == []
    asyncio.run(choose("tinyllama", from_owner(runtime)))
    assert runtime.prepared == ["tinyllama"]

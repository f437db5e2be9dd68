"""The owner's corner of the page: a field for the password where there is one, on a Space a link to sign in, and what a
public page tells visitors.

The password goes to `/owner` alone, from the browser; no handler of the page ever sees it.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.messages import Messages
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

TEMPLATE = """
<details id="owner">
  <summary></summary>
  <form>
    <input type="password" name="password" autocomplete="current-password" required>
    <button type="submit"></button>
    <p role="alert"></p>
  </form>
  <a href="login/huggingface" target="_blank"></a>
</details>
"""
"""The link is in a page of its own: the Hub does not let itself be framed."""
_WORDS = ("owner", "password", "unlock", "lock", "unlocked", "lost", "no_cookies", "sign_in")


def build_owner(runtime: Runtime, wording: Wording) -> None:
    """Adds the field, where there is a password to give, and the link, where the owner can sign in."""
    password, sign_in = runtime.visitors.can_unlock, runtime.settings.sign_in is not None
    if password or sign_in:

        def value(words: Messages) -> dict[str, Any]:
            said = {name: words(f"public.{name}") for name in _WORDS}
            return {"value": {"words": said, "password": password, "sign_in": sign_in}}

        wording.make(
            gr.HTML,
            value,
            html_template=TEMPLATE,
            js_on_load=(resources.files(__package__) / "owner.js").read_text(encoding="utf-8"),
            elem_id="owner-corner",
            min_width=0,
        )


def build_rules(runtime: Runtime, wording: Wording) -> None:
    """Adds what a public page may be used for, and under which licences."""
    if runtime.settings.public:
        wording.make(gr.Markdown, {"value": "public.rules"})

"""The owner's corner of the page: a field for the password where there is one, and what a public page tells visitors.

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
</details>
"""
_WORDS = ("owner", "password", "unlock", "lock", "unlocked", "lost")


def build_owner(runtime: Runtime, wording: Wording) -> None:
    """Adds the field, where there is a password to give."""
    if runtime.visitors.can_unlock:
        wording.make(
            gr.HTML,
            _value,
            html_template=TEMPLATE,
            js_on_load=(resources.files(__package__) / "owner.js").read_text(encoding="utf-8"),
            elem_id="owner-corner",
            min_width=0,
        )


def build_rules(runtime: Runtime, wording: Wording) -> None:
    """Adds what a public page may be used for, and under which licences."""
    if runtime.settings.public:
        wording.make(gr.Markdown, {"value": "public.rules"})


def _value(words: Messages) -> dict[str, Any]:
    return {"value": {"words": {name: words(f"public.{name}") for name in _WORDS}}}

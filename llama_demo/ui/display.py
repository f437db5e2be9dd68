"""The visitor's language and colour scheme: two controls in the page's head, and the rewording of the page.

The choice is the browser's own (`display.js`); the server only gives the words.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from llama_demo.messages import Messages, languages, messages
from llama_demo.ui.words import Wording

_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_AT_ONCE: dict[str, Any] = {"queue": False, "concurrency_limit": None, **_PRIVATE}


def build_display(wording: Wording) -> Any:
    """The two controls; returns the choice of a language."""

    def chosen(words: Messages) -> dict[str, Any]:
        return {"label": words("page.language"), "value": words.language}

    language = wording.make(
        gr.Dropdown,
        chosen,
        choices=[(messages(name)("page.language_name"), name) for name in languages()],
        show_label=False,
        container=False,
        filterable=False,
        visible=len(languages()) > 1,
        elem_id="language",
        min_width=0,
    )
    scheme = wording.make(gr.Button, {"value": "page.scheme"}, size="sm", elem_id="scheme", min_width=0)
    scheme.click(fn=None, js="() => window.llamaDemoDisplay.switchScheme()", **_PRIVATE)
    return language


def speak(page: Any, wording: Wording, language: Any) -> None:
    """Lets the page take on the visitor's language when it opens, and whenever another is chosen.

    Connected last: it rewords every component that was made.
    """

    async def reword(asked: str) -> list[Any]:
        return wording.updates(asked)

    page.load(
        fn=reword,
        js="() => window.llamaDemoLanguage",
        inputs=[gr.Textbox(visible=False)],
        outputs=wording.components,
        **_AT_ONCE,
    )
    language.input(
        fn=wording.reworded,
        js="(language) => window.llamaDemoDisplay.chooseLanguage(language)",
        inputs=[language],
        outputs=wording.components,
        **_AT_ONCE,
    )

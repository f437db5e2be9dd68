"""What the views of the classification tab have in common: how an event reaches a handler and the page's script."""

from __future__ import annotations

from typing import Any

import gradio as gr

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
AT_ONCE: dict[str, Any] = {"queue": False, **PRIVATE}
LANGUAGE = "(asked, ...values) => [window.llamaDemoClassify.language(), ...values]"
"""The first input of an event that has no name: the visitor's language."""


def asked() -> Any:
    """Where the page's script puts a request's name and the visitor's language."""
    return gr.JSON(visible=False)


def begun(kind: str) -> str:
    return f"(...values) => window.llamaDemoClassify.begin('{kind}', values)"


def ended(kind: str) -> str:
    return f"() => window.llamaDemoClassify.end('{kind}')"


def stops(button: Any, kind: str, stop: Any) -> None:
    """`button` ends the request of that kind by its name, which `stop` takes."""
    button.click(
        stop,
        js=f"() => window.llamaDemoClassify.name('{kind}')",
        inputs=[gr.Textbox(visible=False)],
        **AT_ONCE,
    )


def result(elem_id: str) -> Any:
    """Where a handler's HTML goes."""
    return gr.HTML("", js_on_load=None, apply_default_css=False, elem_id=elem_id, elem_classes="classify-result")

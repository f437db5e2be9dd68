"""The controls of how a text is drawn, which the chat and the text tab share: sliders, and the seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from llama_demo.ui.words import Wording
from llama_demo.values import Sampling

_RANGES: dict[str, tuple[float, float, float]] = {
    "temperature": (0, 2, 0.05),
    "top_p": (0.05, 1, 0.05),
    "top_k": (0, 200, 1),
    "min_p": (0, 1, 0.01),
    "repetition_penalty": (1, 2, 0.05),
}
"""Lowest, highest, step."""


def sampling_controls(
    wording: Wording, names: Sequence[str], default: Sampling, max_new_tokens: int, *, prefix: str = ""
) -> list[Any]:
    """A slider for each of `names`, then the seed. `prefix` keeps the ids of one tab from those of another."""

    def slider(name: str) -> Any:
        low, high, step = _RANGES.get(name, (1, max_new_tokens, 1))
        return wording.make(
            gr.Slider,
            {"label": f"chat.{name}", "info": f"chat.{name}_help"},
            minimum=low,
            maximum=high,
            step=step,
            value=getattr(default, name),
            buttons=[],
            elem_id=prefix + name.replace("_", "-"),
        )

    sliders = [slider(name) for name in names]
    seed = wording.make(
        gr.Number,
        {"label": "chat.seed", "info": "chat.seed_help", "placeholder": "chat.seed_random"},
        value=None,
        precision=0,
        elem_id=f"{prefix}seed",
        elem_classes="seed",
    )
    return [*sliders, seed]

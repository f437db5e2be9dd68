"""The look: one quiet Gradio theme in light and dark, with the fonts that the visitor's system has."""

from __future__ import annotations

from typing import Any

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Noto Sans KR", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Noto Sans Mono", "monospace")


def theme() -> Any:
    """A warm grey page with one blue-green accent; nothing of it comes from the network."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        font=[gr.themes.Font(name) for name in SANS],
        font_mono=[gr.themes.Font(name) for name in MONO],
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
    )
    return base.set(
        body_background_fill="#fbfaf8",
        body_background_fill_dark="#171614",
        body_text_color="#26231f",
        body_text_color_dark="#ece8e1",
        body_text_color_subdued="#655f57",
        body_text_color_subdued_dark="#aaa297",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1f1d1a",
        background_fill_secondary="#f4f2ee",
        background_fill_secondary_dark="#26241f",
        border_color_primary="#e2ded7",
        border_color_primary_dark="#3a362f",
        border_color_accent="#0f766e",
        border_color_accent_dark="#2dd4bf",
        border_color_accent_subdued="transparent",
        border_color_accent_subdued_dark="transparent",
        color_accent_soft="#e9f3f1",
        color_accent_soft_dark="#1f302d",
        link_text_color="#0f766e",
        link_text_color_dark="#5eead4",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_info_text_color="#655f57",
        block_info_text_color_dark="#aaa297",
        block_shadow="none",
        button_border_width="0px",
        button_border_width_dark="0px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1f1d1a",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="#c9c3b9",
        input_border_color_dark="#4a453d",
        input_border_color_focus="#0f766e",
        input_border_color_focus_dark="#2dd4bf",
        input_placeholder_color="#736c63",
        input_placeholder_color_dark="#968e83",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#0d8078",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#f4f2ee",
        button_secondary_background_fill_dark="#26241f",
        button_secondary_background_fill_hover="#e9e5de",
        button_secondary_background_fill_hover_dark="#322f29",
        button_secondary_text_color="#26231f",
        button_secondary_text_color_dark="#ece8e1",
    )

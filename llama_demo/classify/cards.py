"""The model card of a published head."""

from __future__ import annotations

from pathlib import Path

from llama_demo import licences
from llama_demo.classify.head import Head
from llama_demo.licences import Licence
from llama_demo.messages import Messages

_FIGURES = ("accuracy", "macro_f1", "calibration_error")


def write_card(head: Head, licence: Licence, words: Messages, folder: Path) -> None:
    """The card of a folder with the backbone in it."""
    front = {"library_name": "transformers", "pipeline_tag": "text-classification", **licence.metadata()}
    text = words("card.text", **_data(head, licence, words))
    (folder / "README.md").write_text(licences.front(front, head.backbone.repo) + text, encoding="utf-8")


def write_head_card(head: Head, licence: Licence, file: str, words: Messages, folder: Path) -> None:
    """The card of a folder with the head's `file` alone."""
    text = words("card.head", file=file, **_data(head, licence, words))
    front = {"library_name": "llama-demo", "pipeline_tag": "text-classification"}
    (folder / "README.md").write_text(licences.front(front, head.backbone.repo) + text, encoding="utf-8")


def _data(head: Head, licence: Licence, words: Messages) -> dict[str, str]:
    figures = head.figures or {}
    found = [f"- {name}: {figures[name]:.3f}" for name in _FIGURES if isinstance(figures.get(name), float)]
    model = licences.repository(head.backbone.repo) or head.backbone.name
    return {
        "name": head.name,
        "backbone": f"{model} {head.backbone.revision}".strip(),
        "model": model,
        "labels": ", ".join(head.labels),
        "prompt": repr(head.prompt),
        "licence": licence.text or words("card.licence_unknown"),
        "figures": "\n".join(found) or "-",
    }

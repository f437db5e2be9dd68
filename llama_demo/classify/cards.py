"""The files that say what a published head is: its model card, and what the backbone's licence asks for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_demo.classify.head import Head
from llama_demo.messages import Messages

FREE = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
"""Licences under which weights may be passed on as they are, and the Hub's names of them."""
_OTHERS = {"Llama 2 Community License": "llama2", "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0"}
_NOTICES = {
    "Llama 2 Community License": "Llama 2 is licensed under the LLAMA 2 Community License, "
    "Copyright (c) Meta Platforms, Inc. All Rights Reserved.\n"
}
_COPIED = ("LICENSE*", "LICENCE*", "USE_POLICY*")
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FIGURES = ("accuracy", "macro_f1", "calibration_error")


@dataclass(frozen=True, slots=True)
class Licence:
    """Of a backbone; both empty where nobody said."""

    name: str
    link: str

    @property
    def free(self) -> bool:
        """Whether nobody needs to be asked before the weights are passed on."""
        return self.name in FREE


def write_card(head: Head, licence: Licence, words: Messages, folder: Path) -> None:
    """The card of a folder with the backbone in it, and the notice that its licence asks for."""
    named = {**FREE, **_OTHERS}.get(licence.name)
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        **({"license": named} if named else {"license": "other", "license_name": licence.name or "unknown"}),
        **({"license_link": licence.link} if licence.link and not named else {}),
    }
    text = words("card.text", **_data(head, licence, words))
    (folder / "README.md").write_text(_front(head, front) + text, encoding="utf-8")
    if licence.name in _NOTICES:
        (folder / "NOTICE").write_text(_NOTICES[licence.name], encoding="utf-8")


def write_head_card(head: Head, licence: Licence, file: str, words: Messages, folder: Path) -> None:
    """The card of a folder with the head's `file` alone."""
    text = words("card.head", file=file, **_data(head, licence, words))
    front = {"library_name": "llama-demo", "pipeline_tag": "text-classification"}
    (folder / "README.md").write_text(_front(head, front) + text, encoding="utf-8")


def copy_licence(backbone: Path, folder: Path) -> None:
    """The licence files that came with the backbone's weights."""
    for pattern in _COPIED if backbone.is_dir() else ():
        for file in backbone.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _front(head: Head, values: Mapping[str, str]) -> str:
    """The card's metadata. A JSON text is a YAML text: what a stranger's file says of itself stays one value."""
    base = {"base_model": _repository(head)} if _repository(head) else {}
    lines = [f"{key}: {json.dumps(value)}" for key, value in {**values, **base}.items()]
    return "\n".join(("---", *lines, "---", "", ""))


def _repository(head: Head) -> str:
    return head.backbone.repo if _REPOSITORY.fullmatch(head.backbone.repo) else ""


def _data(head: Head, licence: Licence, words: Messages) -> dict[str, str]:
    figures = head.figures or {}
    found = [f"- {name}: {figures[name]:.3f}" for name in _FIGURES if isinstance(figures.get(name), float)]
    model = _repository(head) or head.backbone.name
    return {
        "name": head.name,
        "backbone": f"{model} {head.backbone.revision}".strip(),
        "model": model,
        "labels": ", ".join(head.labels),
        "prompt": repr(head.prompt),
        "licence": " ".join(filter(None, (licence.name, licence.link))) or words("card.licence_unknown"),
        "figures": "\n".join(found) or "-",
    }

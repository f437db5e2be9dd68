"""A LoRA adapter's folder in PEFT's format, checked before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.errors import BadCheckpoint
from llama_demo.reasons import Reason

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "base_model.model.score.weight"
"""The name under which PEFT keeps a classifier's head beside its adapter."""


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def classifies(folder: Path) -> bool:
    """Whether it was trained together with a head, be that in the file or not. Raises `BadCheckpoint`."""
    return read_adapter(folder).get("task_type") == "SEQ_CLS" or HEAD in read_tensors(folder)


def read_adapter(folder: Path) -> dict[str, Any]:
    """Its configuration. Raises `BadCheckpoint` where it is no LoRA adapter whose weights can be read safely."""
    title = str(folder)
    try:
        config = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadCheckpoint(title, Reason("checkpoint.part_unreadable", file=CONFIG)) from None
    if config.get("peft_type") != "LORA":
        kind = config.get("peft_type")
        raise BadCheckpoint(title, Reason("checkpoint.adapter_kind", kind=kind))
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        problem = Reason("checkpoint.pickled") if pickled else Reason("checkpoint.no_file", file=WEIGHTS)
        raise BadCheckpoint(title, problem)
    return config

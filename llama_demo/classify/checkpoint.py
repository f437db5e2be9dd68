"""The head of a `LlamaForSequenceClassification` folder, or of a LoRA adapter in PEFT's format: only where it is really
in the files.

transformers and peft fill a missing one with random numbers and go on; here it is refused, with the ways out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_demo.checkpoints.adapter import HEAD, classifies, is_adapter, read_adapter
from llama_demo.checkpoints.llama import float_slices
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.classify.export import PROMPT_KEY
from llama_demo.classify.head import WEIGHT, Backbone, Head
from llama_demo.classify.wrapping import PLACE
from llama_demo.errors import BadCheckpoint, BadHead, UntrainedHead, WrongBackbone
from llama_demo.reasons import Reason

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


def is_classifier(folder: Path | None) -> bool:
    """Whether what the folder says of itself is that it classifies texts. Raises `BadHead` where it is unreadable."""
    if folder is None:
        return False
    if is_adapter(folder):
        try:
            return classifies(folder)
        except BadCheckpoint:
            return False
    if not (folder / "config.json").is_file():
        return False
    named = _config(folder).get("architectures")
    return isinstance(named, list) and "LlamaForSequenceClassification" in named


def read_checkpoint(folder: Path, name: str, base: Path | None = None) -> Head:
    """The head in `folder`, as `name`; `base` is the folder of an adapter's base, where it is on this machine.

    Raises `UntrainedHead`, `BadHead`, `BadCheckpoint`, and `WrongBackbone` for an adapter of another base.
    """
    if is_adapter(folder):
        return _read_adapter(folder, name, base)
    config = _config(folder)
    if not list(folder.glob("*.safetensors")) and any(list(folder.glob(pattern)) for pattern in _PICKLED):
        raise BadHead(str(folder), Reason("head.pickled_weights"))
    tensors = read_tensors(folder)
    if WEIGHT not in tensors:
        raise UntrainedHead(str(folder), Reason("head.not_in_files", weight=WEIGHT))
    weight = _matrix(folder, tensors[WEIGHT])
    named = config.get("id2label") or _numbered(len(weight))
    if not _names_all(named, len(weight)):
        raise BadHead(str(folder), Reason("head.unnamed", count=len(weight), weight=WEIGHT))
    return _head(name, weight, named, config)


def _read_adapter(folder: Path, name: str, base: Path | None) -> Head:
    """Its labels have the names that the base has for so many, else transformers' own."""
    read_adapter(folder)
    tensors = read_tensors(folder)
    if HEAD not in tensors:
        raise UntrainedHead(str(folder), Reason("head.not_in_adapter"))
    weight, config = _matrix(folder, tensors[HEAD]), _config(base) if base is not None else {}
    if (hidden := config.get("hidden_size", weight.shape[1])) != weight.shape[1]:
        raise WrongBackbone(name, Reason("backbone.base_width", head=weight.shape[1], base=hidden))
    named = config.get("id2label", {})
    return _head(name, weight, named if _names_all(named, len(weight)) else _numbered(len(weight)), config)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadHead(str(folder), Reason("head.no_config")) from None


def _matrix(folder: Path, tensor: Any) -> NDArray[np.float32]:
    if len(tensor.shape) != 2:
        raise BadHead(str(folder), Reason("head.no_matrix", weight=WEIGHT))
    return np.concatenate(list(float_slices(tensor)))


def _names_all(named: object, count: int) -> bool:
    return isinstance(named, dict) and set(named) == {str(number) for number in range(count)}


def _numbered(count: int) -> dict[str, str]:
    """transformers' own names for labels without any."""
    return {str(number): f"LABEL_{number}" for number in range(count)}


def _head(name: str, weight: NDArray[np.float32], named: Mapping[str, str], config: Mapping[str, Any]) -> Head:
    return Head(
        name=name,
        labels=tuple(str(named[str(number)]) for number in range(len(weight))),
        weight=weight,
        prompt=str(config.get(PROMPT_KEY) or PLACE),
        backbone=Backbone(name, str(config.get("_name_or_path") or "")),
        problem_type=config.get("problem_type")
        or ("regression" if len(weight) == 1 else "single_label_classification"),
    )

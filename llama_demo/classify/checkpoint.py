"""The head of a `LlamaForSequenceClassification` folder: only where its `score.weight` is really in the files.

transformers fills a missing one with random numbers and goes on; here it is refused, with the ways out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from llama_demo.checkpoints.llama import float_slices
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.classify.export import PROMPT_KEY
from llama_demo.classify.head import WEIGHT, Backbone, Head
from llama_demo.classify.wrapping import PLACE
from llama_demo.errors import BadHead, UntrainedHead

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


def is_classifier(folder: Path | None) -> bool:
    """Whether the folder's config.json says that it classifies texts."""
    if folder is None or not (folder / "config.json").is_file():
        return False
    return "LlamaForSequenceClassification" in _config(folder).get("architectures", [])


def read_checkpoint(folder: Path, name: str) -> Head:
    """The head in `folder`, as `name`. Raises `UntrainedHead`, `BadHead`, `BadCheckpoint`."""
    config = _config(folder)
    if not list(folder.glob("*.safetensors")) and any(list(folder.glob(pattern)) for pattern in _PICKLED):
        raise BadHead(str(folder), "its weights are pickled files, which could run a stranger's program")
    tensors = read_tensors(folder)
    if WEIGHT not in tensors:
        raise UntrainedHead(str(folder), f"there is no {WEIGHT} in its files")
    if len(tensors[WEIGHT].shape) != 2:
        raise BadHead(str(folder), f"its {WEIGHT} is no matrix")
    weight = np.concatenate(list(float_slices(tensors[WEIGHT])))
    return Head(
        name=name,
        labels=_labels(folder, config, len(weight)),
        weight=weight,
        prompt=str(config.get(PROMPT_KEY) or PLACE),
        backbone=Backbone(name, str(config.get("_name_or_path") or "")),
        problem_type=config.get("problem_type")
        or ("regression" if len(weight) == 1 else "single_label_classification"),
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadHead(str(folder), "its config.json cannot be read") from None


def _labels(folder: Path, config: dict[str, Any], count: int) -> tuple[str, ...]:
    """As the configuration names them, by number; transformers' own names where it does not."""
    named = config.get("id2label") or {str(number): f"LABEL_{number}" for number in range(count)}
    if not isinstance(named, dict) or set(named) != {str(number) for number in range(count)}:
        raise BadHead(str(folder), f"its id2label does not name the {count} labels that its {WEIGHT} has")
    return tuple(str(named[str(number)]) for number in range(count))

"""A trained head: `score.weight` with its labels, its prompt and the backbone it belongs to, in one safetensors file.

Nothing in a file is believed before it is checked; a pickle is never opened. What the numbers of a head that is not in
the file would be, nobody learns here: there is no way to make one without its weight.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llama_demo.checkpoints.whole import replacing
from llama_demo.classify.labels import check_names
from llama_demo.classify.wrapping import Wrapping
from llama_demo.errors import BadHead, BadLabels, InvalidParameter, InvalidUnicode, UntrainedHead, WrongBackbone
from llama_demo.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
WEIGHT, PROBE, CONFIG = "score.weight", "backbone.probe", "llama_demo.head"
SUFFIX = ".safetensors"
MOST_BYTES = 200_000_000
MOST_HEADER_BYTES = 10_000_000
ALIKE = 0.98
"""The least cosine of a probe's features on the backbone that a head was trained on and the one it is used on: the
engines' roundings of one model stay far above it, another model far below."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_PICKLES = (b"PK", b"\x80")
"""How they begin. So may the 8 bytes of a header's length, but after those comes a brace."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """The model that made a head's features: its name in the catalog, its repository and revision where it has one."""

    name: str
    repo: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """`weight` float32 [labels, hidden]; `probe` float32 [hidden], the backbone's features of a fixed text, if known;
    `figures` is the training's report without texts. Raises `BadHead`, and what its name, prompt and labels raise."""

    name: str
    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    prompt: str
    backbone: Backbone
    problem_type: ProblemType = "single_label_classification"
    probe: NDArray[np.float32] | None = None
    figures: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        Wrapping(self.prompt)
        if self.problem_type not in get_args(ProblemType):
            raise BadHead(self.name, Reason("head.kind", kind=self.problem_type))
        if self.problem_type == "single_label_classification":
            check_names(self.labels)
        if self.weight.ndim != 2 or not self.weight.size or self.weight.dtype != np.float32:
            raise BadHead(self.name, Reason("head.no_floats", weight=WEIGHT))
        if len(self.labels) != len(self.weight):
            raise BadHead(self.name, Reason("head.count", labels=len(self.labels), rows=len(self.weight)))
        if not np.isfinite(self.weight).all() or (self.probe is not None and not np.isfinite(self.probe).all()):
            raise BadHead(self.name, Reason("head.no_number"))

    @property
    def hidden_size(self) -> int:
        return int(self.weight.shape[1])

    @property
    def digest(self) -> str:
        """Tells the head from every other that may decide otherwise, of the same name too."""
        said = json.dumps([self.prompt, self.labels, self.problem_type])
        return hashlib.sha256(said.encode() + self.weight.tobytes()).hexdigest()[:16]

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """[n, labels]: probabilities that sum to 1, or one for each label alone (multi-label), or values (regression).

        Raises `WrongBackbone` for features of another width.
        """
        self.check_width(features.shape[1])
        logits = features.astype(np.float64) @ self.weight.T.astype(np.float64)
        if self.problem_type == "regression":
            return np.asarray(logits)
        if self.problem_type == "multi_label_classification":
            return np.asarray(1.0 / (1.0 + np.exp(-logits)))
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def check_width(self, width: int) -> None:
        """Raises `WrongBackbone` where a model's features are of another width."""
        if width != self.hidden_size:
            raise WrongBackbone(self.name, Reason("backbone.width", trained=self.hidden_size, width=width))

    def check_backbone(self, model: str, probe: NDArray[np.float32]) -> None:
        """Raises `WrongBackbone` where `model` does not read the probe as the head's own backbone does."""
        self.check_width(len(probe))
        if self.probe is None:
            return
        likeness = float(self.probe @ probe) / (float(np.linalg.norm(self.probe) * np.linalg.norm(probe)) or 1.0)
        if likeness < ALIKE:
            if not self.backbone.name:
                raise WrongBackbone(self.name, Reason("backbone.another", model=model))
            raise WrongBackbone(self.name, Reason("backbone.other", trained=self.backbone.name, model=model))


def check_name(name: object) -> str:
    """Raises `InvalidParameter` for what cannot name a head, nor its file."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith((".", " ")):
        raise InvalidParameter("name", name, Reason("expected.classifier_name"))
    return name


def renamed(head: Head, name: str) -> Head:
    """`head` under another name. Raises `InvalidParameter`."""
    return replace(head, name=name)


def save(head: Head, path: Path) -> None:
    """Writes the file whole or not at all. Raises `DiskFull`."""
    from safetensors.numpy import save as to_bytes

    config = {
        "name": head.name,
        "labels": head.labels,
        "prompt": head.prompt,
        "problem_type": head.problem_type,
        "backbone": {
            "name": head.backbone.name,
            "repo": head.backbone.repo,
            "revision": head.backbone.revision,
            "hidden_size": head.hidden_size,
        },
        "report": head.figures,
    }
    tensors = {WEIGHT: head.weight, **({} if head.probe is None else {PROBE: head.probe})}
    content = to_bytes(tensors, metadata={CONFIG: json.dumps(config), "format": "pt"})
    with replacing(path, len(content)) as file:
        file.write(content)


def load(path: Path, title: str = "") -> Head:
    """Reads a head that `save` wrote; `title` names it in errors. Raises `UntrainedHead`, `BadHead`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    title = title or path.name
    content = _content(path, title)
    try:
        tensors = from_bytes(content)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise BadHead(title, Reason("head.no_safetensors")) from None
    if WEIGHT not in tensors:
        raise UntrainedHead(title, Reason("head.not_in_file", weight=WEIGHT))
    config = _config(content, title)
    try:
        backbone = config["backbone"]
        return Head(
            name=str(config["name"]),
            labels=tuple(str(label) for label in config["labels"]),
            weight=np.asarray(tensors[WEIGHT]),
            prompt=config["prompt"],
            backbone=Backbone(*(str(backbone[key]) for key in ("name", "repo", "revision"))),
            problem_type=config["problem_type"],
            probe=tensors.get(PROBE),
            figures=config.get("report"),
        )
    except (KeyError, TypeError, AttributeError):
        raise BadHead(title, Reason("head.lacks")) from None
    except BadLabels as error:
        raise BadHead(title, error.problem) from None
    except (InvalidParameter, InvalidUnicode):
        raise BadHead(title, Reason("head.name_or_prompt")) from None


def _content(path: Path, title: str) -> bytes:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(9)
            if begin.startswith(_PICKLES) and not begin.endswith(b"{"):
                raise BadHead(title, Reason("head.pickled"))
            if size > MOST_BYTES:
                raise BadHead(title, Reason("head.large"))
            return begin + file.read(MOST_BYTES)
    except OSError as error:
        raise BadHead(title, Reason("head.unreadable", said=error.strerror or str(error))) from None


def _config(content: bytes, title: str) -> dict[str, Any]:
    """What the file says of itself: a safetensors header is JSON, after its length in 8 bytes."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + min(length, MOST_HEADER_BYTES)])
        config = json.loads(header["__metadata__"][CONFIG], parse_constant=_no_number)
    except (ValueError, KeyError, TypeError):
        raise BadHead(title, Reason("head.says_nothing")) from None
    if not isinstance(config, dict):
        raise BadHead(title, Reason("head.says_unreadable"))
    return config


def _no_number(text: str) -> float:
    raise ValueError(text)

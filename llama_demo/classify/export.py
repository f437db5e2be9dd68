"""A head with its backbone as a folder that plain transformers loads as `LlamaForSequenceClassification`.

The backbone's numbers are copied a slice at a time, so no model is in memory; the head's matrix becomes `score.weight`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_demo.checkpoints.hf_write import write_hf
from llama_demo.checkpoints.llama import OUTPUT, Checkpoint, Config, SourceTensor
from llama_demo.checkpoints.whole import replacing_folder
from llama_demo.classify.cards import write_card
from llama_demo.classify.head import WEIGHT, Head
from llama_demo.errors import BadCheckpoint
from llama_demo.licences import Licence
from llama_demo.messages import Messages
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROMPT_KEY = "classifier_prompt"
"""Where config.json keeps what a text is wrapped in."""
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class ScoreTensor:
    """The head's matrix as `SourceTensor`."""

    weight: NDArray[np.float32]
    path: Path
    name: str = WEIGHT
    type: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:  # noqa: ARG002 - a head is never large
        yield self.weight


def export(
    head: Head,
    backbone: Checkpoint,
    target: Path,
    licence: Licence,
    words: Messages,
    *,
    report: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the folder whole or not at all, with a model card that says what a text must be wrapped in and under which
    `licence` the backbone is.

    Raises `WrongBackbone` for a backbone of another width, `BadCheckpoint` for one that cannot be read, `DiskFull`,
    and `FileExistsError` where `target` is there and not empty.
    """
    head.check_width(backbone.config.count("hidden_size"))
    pad, pad_id = padding(Tokenizer.load(backbone.tokenizer))
    tensors: dict[str, SourceTensor] = {name: each for name, each in backbone.tensors.items() if name != OUTPUT}
    tensors[WEIGHT] = ScoreTensor(head.weight, target)
    needed = sum(int(np.prod(each.shape)) * _ITEM_BYTES[each.type] for each in tensors.values())
    config = Config(backbone.config.path, {**backbone.config.values, **_values(head, pad_id)})
    with replacing_folder(target, needed) as folder:
        made = folder / "model"
        write_hf(Checkpoint(backbone.folder, backbone.tokenizer, config, tensors), made, report=report)
        _name_padding(made / "tokenizer_config.json", pad)
        licence.write_files(backbone.folder, made)
        write_card(head, licence, words, made)
        for file in made.iterdir():
            file.rename(folder / file.name)
        made.rmdir()


def padding(tokenizer: Tokenizer) -> tuple[str, int]:
    """The token that fills short texts up: the model's own, else the one for unknown text, else an end.

    Whatever it is, `LlamaForSequenceClassification` takes the last token before it: so it may not end a wrapped text.
    """
    for name in ("pad_token", "unk_token", "eos_token"):
        text = tokenizer.named_tokens.get(name)
        number = None if text is None else tokenizer.backend.token_to_id(text)
        if text is not None and number is not None:
            return text, int(number)
    raise BadCheckpoint("tokenizer_config.json", Reason("checkpoint.no_filler"))


def _values(head: Head, pad_id: int) -> Mapping[str, Any]:
    names = {str(place): label for place, label in enumerate(head.labels)}
    return {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": names,
        "label2id": {label: int(place) for place, label in names.items()},
        "problem_type": head.problem_type,
        "pad_token_id": pad_id,
        PROMPT_KEY: head.prompt,
    }


def _name_padding(path: Path, pad: str) -> None:
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values.setdefault("pad_token", pad)
    if not values["pad_token"]:
        values["pad_token"] = pad
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

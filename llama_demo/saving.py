"""A model saved as a folder that plain transformers loads, with a model card and the files that its licence asks for.

Another type, a padding token and `pretraining_tp` are changed on the way where that is asked for. It copies files a
slice at a time, and has no model in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_demo.catalog import Entry
from llama_demo.checkpoints.gguf_write import Report
from llama_demo.checkpoints.hf_write import Dtype, as_stored, write_hf, write_tokenizer
from llama_demo.checkpoints.llama import EMBEDDING, OUTPUT, Checkpoint, Config, SourceTensor, float_slices
from llama_demo.errors import BadCheckpoint
from llama_demo.licences import Licence, front
from llama_demo.messages import Messages
from llama_demo.prompts import template_for
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


MOST_SLICES = 64
"""Of `pretraining_tp`: as many as the largest checkpoints of the architecture have parts."""


@dataclass(frozen=True, slots=True)
class Changes:
    """`pad_token` is a token's text, which is added where the tokenizer has none such; empty and 0 change nothing."""

    dtype: Dtype = "auto"
    pad_token: str = ""
    pretraining_tp: int = 0


@dataclass(frozen=True, slots=True)
class LongerTensor:
    """`source` with one row more, the mean of the others: what an added token begins with in transformers, too."""

    source: SourceTensor

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def type(self) -> str:
        return self.source.type

    @property
    def shape(self) -> tuple[int, ...]:
        rows, width = self.source.shape
        return rows + 1, width

    def raw(self, row_multiple: int = 1) -> Iterator[NDArray[Any]]:
        """The source's own slices, then the row."""
        yield from self.source.raw(row_multiple)
        total = np.zeros(self.shape[1], np.float64)
        for values in float_slices(self.source):
            total += values.sum(axis=0, dtype=np.float64)
        mean = (total / self.source.shape[0]).astype(np.float32)[None]
        yield as_stored(mean, self.type)


def to_confirm(entry: Entry) -> Licence | None:
    """The licence that somebody must confirm before the model is passed on, if any."""
    licence = Licence(entry.licence, entry.link)
    return None if entry.access == "open" and licence.free else licence


def save(
    entry: Entry, source: Checkpoint, target: Path, changes: Changes, words: Messages, *, report: Report | None = None
) -> None:
    """Writes the folder whole or not at all, with Llama-2's template where a chat model, by its entry's name, has none.

    Raises `BadCheckpoint`, `DiskFull`, and `FileExistsError` where `target` is there and not empty.
    """
    licence = Licence(entry.licence, entry.link)
    with tempfile.TemporaryDirectory() as made:
        tokenizer = Path(made)
        write_tokenizer(source, tokenizer)
        if not Tokenizer.load(tokenizer).chat_template and (template := template_for(entry.name)):
            (tokenizer / "chat_template.jinja").write_text(template, encoding="utf-8")
        changed = replace(_changed(source, tokenizer, changes), tokenizer=tokenizer)

        def finish(folder: Path) -> None:
            licence.write_files(source.folder, folder)
            metadata = {"library_name": "transformers", "pipeline_tag": "text-generation", **licence.metadata()}
            text = words(
                "save.card",
                title=entry.title,
                source=f"{entry.repo or entry.title} {entry.revision}".strip(),
                changes=_said(changes, words),
                licence=licence.text or words("card.licence_unknown"),
            )
            (folder / "README.md").write_text(front(metadata, entry.repo) + text, encoding="utf-8")

        write_hf(changed, target, dtype=changes.dtype, report=report, finish=finish)


def _changed(source: Checkpoint, tokenizer: Path, changes: Changes) -> Checkpoint:
    values, tensors = dict(source.config.values), dict(source.tensors)
    if changes.pretraining_tp:
        values["pretraining_tp"] = changes.pretraining_tp
    if changes.pad_token:
        number = _add_padding(tokenizer, changes.pad_token)
        rows = tensors[EMBEDDING].shape[0]
        if number > rows:
            raise BadCheckpoint(str(tokenizer), Reason("checkpoint.tokenizer_rows", tokens=number, rows=rows))
        if number == rows:
            for name in (EMBEDDING, OUTPUT):
                if name in tensors:
                    tensors[name] = LongerTensor(tensors[name])
            values["vocab_size"] = rows + 1
        values["pad_token_id"] = number
    return replace(source, config=Config(source.config.path, values), tensors=tensors)


def _add_padding(folder: Path, token: str) -> int:
    """Names `token` as the padding in the tokenizer's files, where it is added if it is new; returns its id."""
    number = Tokenizer.load(folder).add_special(token, folder / "tokenizer.json")
    for name, value in (("tokenizer_config.json", token), ("generation_config.json", number)):
        path = folder / name
        if name == "tokenizer_config.json" or path.is_file():
            values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            values["pad_token" if name == "tokenizer_config.json" else "pad_token_id"] = value
            path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return number


def _said(changes: Changes, words: Messages) -> str:
    said = [
        words("save.dtype", dtype=changes.dtype) if changes.dtype != "auto" else "",
        words("save.pad_token", token=repr(changes.pad_token)) if changes.pad_token else "",
        words("save.pretraining_tp", slices=changes.pretraining_tp) if changes.pretraining_tp else "",
    ]
    return "\n".join(f"- {line}" for line in said if line) or "- " + words("save.unchanged")

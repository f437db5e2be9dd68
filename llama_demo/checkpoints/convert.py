"""Turns a checkpoint into another format: Meta's or Hugging Face's into Hugging Face's or GGUF.

A target appears whole or not at all; what a killed run left is removed by the next one into the same place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from llama_demo.checkpoints.gguf_convert import write_llama
from llama_demo.checkpoints.gguf_write import Quantization, Report
from llama_demo.checkpoints.hf_write import Dtype, write_hf
from llama_demo.checkpoints.llama import Checkpoint, read_folder
from llama_demo.checkpoints.meta_params import PARAMS
from llama_demo.errors import BadCheckpoint, TargetExists
from llama_demo.reasons import Reason

Kind = Literal["hf", "meta"]


def kind_of(folder: Path) -> Kind:
    """Which format `folder` is in. Raises `BadCheckpoint` for neither, naming a checkpoint nearby."""
    if (folder / "config.json").is_file():
        return "hf"
    if (folder / PARAMS).is_file() or list(folder.glob("consolidated.*.pth")):
        return "meta"
    raise BadCheckpoint(str(folder), _what_else(folder))


def _what_else(folder: Path) -> Reason:
    if not folder.exists():
        return Reason("checkpoint.no_folder")
    if not folder.is_dir():
        return Reason("checkpoint.file_not_folder")
    near = [folder.resolve().parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for place in near:
        if (place / PARAMS).is_file() or (place / "config.json").is_file():
            return Reason("checkpoint.near", place=place)
    return Reason("checkpoint.neither_format")


def read_checkpoint(folder: Path) -> Checkpoint:
    """A folder in either format, checked; no weights are read yet. Raises `BadCheckpoint`."""
    if kind_of(folder) == "hf":
        return read_folder(folder)
    from llama_demo.checkpoints.meta import read_meta  # imports torch

    return read_meta(folder)


def convert(
    source: Path,
    target: Path,
    *,
    to: Literal["hf", "gguf"],
    dtype: Dtype = "auto",
    quantization: Quantization = "q8_0",
    report: Report | None = None,
    replace: bool = False,
) -> None:
    """Writes the checkpoint in `source` as `target`: a folder for `hf`, in `dtype`; a file for `gguf`, quantised.

    With `replace` a file that is there gives way once the new one is whole. Where Meta's checksums are there, they are
    checked first; `report` counts those bytes too. Raises `TargetExists`, `BadCheckpoint`, `DiskFull`.
    """
    if not replace and target.exists() and not (to == "hf" and target.is_dir() and not any(target.iterdir())):
        raise TargetExists(str(target))
    checkpoint = read_checkpoint(source)
    told = _verified(source, report) if kind_of(source) == "meta" else report
    if to == "gguf":
        write_llama(checkpoint, target, to=quantization, report=told)
        return
    try:
        write_hf(checkpoint, target, dtype=dtype, report=told)
    except FileExistsError:
        raise TargetExists(str(target)) from None


def _verified(source: Path, report: Report | None) -> Report | None:
    """Checks the checksums, and gives a report that goes on counting where that ended."""
    from llama_demo.checkpoints.meta import checked_bytes, verify

    checked = checked_bytes(source)
    verify(source, lambda done: report(done, 2 * checked) if report is not None else None)
    return None if report is None else lambda done, total: report(checked + done, checked + total)

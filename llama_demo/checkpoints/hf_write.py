"""Writes a Llama as a Hugging Face folder: whole or not at all, a slice of a tensor at a time.

The weights keep their type unless another is asked for; nothing is computed but that. Files that describe the
tokenizer are copied where the source has them, and made from its SentencePiece model where it has only that.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llama_demo.checkpoints.gguf_read import Metadata
from llama_demo.checkpoints.gguf_tokenizer import write_described_tokenizer
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.checkpoints.gguf_write import Report
from llama_demo.checkpoints.llama import EMBEDDING, Checkpoint, SourceTensor, float_slices
from llama_demo.checkpoints.safetensors_read import ITEMS, item_bytes
from llama_demo.checkpoints.whole import replacing_folder
from llama_demo.errors import BadCheckpoint
from llama_demo.prompts import template_for
from llama_demo.reasons import Reason

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
STORED: dict[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SHARD_BYTES = 5_000_000_000
"""Files no larger than this are written, as the Hub's own are."""
OTHER_FILES_BYTES = 20_000_000
"""What is set aside for the tokenizer and the configuration."""
_COPIED = (
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_FLOAT16_MOST = float(np.finfo(np.float16).max)


def write_hf(
    source: Checkpoint,
    target: Path,
    *,
    dtype: Dtype = "auto",
    shard_bytes: int = SHARD_BYTES,
    report: Report | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Writes config.json, safetensors (in several files with an index where they are large) and the tokenizer; `finish`
    adds what else belongs into the folder before it gets its name.

    Raises `BadCheckpoint`, `DiskFull`, and `FileExistsError` where `target` is there and not empty.
    """
    types = {name: STORED.get(dtype, tensor.type) for name, tensor in source.tensors.items()}
    files = _shared_out(source, types, shard_bytes)
    total = sum(_bytes(tensor, types[tensor.name]) for tensor in source.tensors.values())
    done = 0
    with replacing_folder(target, total + OTHER_FILES_BYTES) as folder:
        for number, tensors in enumerate(files, 1):
            with (folder / _file_name(number, len(files))).open("xb") as file:
                file.write(_header(tensors, types))
                for tensor in tensors:
                    for content in _contents(tensor, types[tensor.name]):
                        file.write(content.data)
                        done += content.nbytes
                        if report is not None:
                            report(done, total)
                file.flush()
                os.fsync(file.fileno())
        if len(files) > 1:
            _write_json(folder / "model.safetensors.index.json", _index(files, total))
        write_tokenizer(source, folder)
        stored = types[EMBEDDING]
        named = next(name for name, kind in STORED.items() if kind == stored)
        values = {name: value for name, value in source.config.values.items() if name not in ("dtype", "torch_dtype")}
        _write_json(folder / "config.json", {**values, "torch_dtype": named})
        if finish is not None:
            finish(folder)


def _shared_out(source: Checkpoint, types: dict[str, str], shard_bytes: int) -> list[list[SourceTensor]]:
    """The tensors in the order of their names' numbers, in as few files as `shard_bytes` allows."""
    files: list[list[SourceTensor]] = [[]]
    filled = 0
    for tensor in source.tensors.values():
        size = _bytes(tensor, types[tensor.name])
        if files[-1] and filled + size > shard_bytes:
            files.append([])
            filled = 0
        files[-1].append(tensor)
        filled += size
    return files


def _bytes(tensor: SourceTensor, kind: str) -> int:
    return math.prod(tensor.shape) * item_bytes(kind)


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _header(tensors: Sequence[SourceTensor], types: dict[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        size = _bytes(tensor, types[tensor.name])
        entries[tensor.name] = {
            "dtype": types[tensor.name],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _contents(tensor: SourceTensor, kind: str) -> Iterator[NDArray[Any]]:
    if tensor.type == kind:
        for items in tensor.raw():
            yield np.ascontiguousarray(items)
        return
    for values in float_slices(tensor):
        if kind == "F16" and np.abs(values).max() > _FLOAT16_MOST:
            raise BadCheckpoint(str(tensor.path), Reason("checkpoint.too_large", name=tensor.name))
        yield as_stored(values, kind)


def as_stored(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """`values` in the type `kind` of a file, bfloat16 as its bits."""
    return _as_bfloat16(values) if kind == "BF16" else np.ascontiguousarray(values, ITEMS[kind])


def _as_bfloat16(values: NDArray[np.float32]) -> NDArray[Any]:
    """The bits of the nearest bfloat16, ties to even: what is cut off decides by its size and the last bit kept."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded: NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def _index(files: Sequence[Sequence[SourceTensor]], total: int) -> dict[str, Any]:
    names = {
        tensor.name: _file_name(number, len(files)) for number, tensors in enumerate(files, 1) for tensor in tensors
    }
    return {"metadata": {"total_size": total}, "weight_map": names}


def write_tokenizer(source: Checkpoint, folder: Path) -> None:
    """What the source has is kept; what it lacks is made."""
    made, config = dict[str, Any](), folder / "tokenizer_config.json"
    if not (source.tokenizer / "tokenizer.json").is_file():
        fields = vocabulary_fields(source.tokenizer, source.tensors[EMBEDDING].shape[0])
        fields["llama.context_length"] = source.config.count("max_position_embeddings")
        if template := template_for(source.folder.resolve().name):
            fields.setdefault("tokenizer.chat_template", template)
        write_described_tokenizer(Metadata(source.tokenizer, fields), folder)
        made = json.loads(config.read_text(encoding="utf-8"))
    for name in _COPIED:
        if (source.tokenizer / name).is_file():
            shutil.copyfile(source.tokenizer / name, folder / name)
    if made:
        own = json.loads(config.read_text(encoding="utf-8"))
        _write_json(config, {**made, **{name: value for name, value in own.items() if value not in (None, "")}})


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

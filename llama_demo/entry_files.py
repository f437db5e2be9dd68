"""What an entry's files are, and its model's shape: from the catalog, a header or a configuration, not from weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

from llama_demo import hub
from llama_demo.catalog import Entry, entry_at
from llama_demo.checkpoints import adapter, gguf
from llama_demo.checkpoints.llama import EMBEDDING, OUTPUT
from llama_demo.checkpoints.meta_params import VOCABULARY, read_params
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.errors import BadCheckpoint, Unsupported
from llama_demo.model_errors import BaseMissing
from llama_demo.placement import OPENVINO_BYTES, OPENVINO_REPRODUCIBLE_BYTES, Model
from llama_demo.reasons import Reason

ARCHITECTURES = frozenset({"LlamaForCausalLM", "LlamaForSequenceClassification"})
ADAPTER_FILES = (adapter.CONFIG, adapter.WEIGHTS)
META_FILES = ("params.json", "consolidated.*.pth", "tokenizer.model", "checklist.chk")
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_ASSUMED_ENDS = 10
"""One number in so many is the embedding's or the head's, where the catalog does not say: more than in the family."""


def is_converted(entry: Entry) -> bool:
    """Whether the CPU's engine is given a file written here from a whole checkpoint."""
    return entry.format == "meta" or (entry.format == "hf" and entry.path is None)


def wanted_files(entry: Entry) -> tuple[str, ...]:
    """The files of a repository that loading needs. Raises `Unsupported` for a model that another server runs."""
    if entry.format == "remote":
        raise Unsupported("being downloaded or saved: another server runs it", entry.title)
    if entry.file:
        return (entry.file,)
    if entry.base:
        return ADAPTER_FILES
    return META_FILES if entry.format == "meta" else HUB_FILES


def read_model(entry: Entry, *, reproducible: bool = False) -> Model:
    """What the arithmetic needs, read from the catalog, a header or a configuration, never from weights."""
    each = OPENVINO_REPRODUCIBLE_BYTES if reproducible else OPENVINO_BYTES
    if entry.package or entry.path is None:
        kind = "q8_0" if entry.package else entry.quantization
        held = int(entry.parameters * each[kind]) if kind else 0
        ends = entry.embedding_parameters or entry.parameters // _ASSUMED_ENDS
        return Model(entry.parameters, ends, entry.layers, entry.kv_heads, entry.head_size, held)
    if entry.format == "meta":
        params = read_params(entry.path)
        ends = 2 * (params.vocab_size or VOCABULARY) * params.dim
        return Model(params.parameters(), ends, params.layers, params.kv_heads, params.head_dim)
    if entry.format == "gguf":
        header = gguf.read_header(entry.path)
        shape = (header.block_count, header.head_count_kv, header.head_dim)
        return Model(header.parameters, 0, *shape, _held_by_openvino(header, each))
    return _read_folder(entry.path)


def _held_by_openvino(header: gguf.GGUFHeader, bytes_each: Mapping[str, float]) -> int:
    rewritten = gguf.unfaithful_types(header)
    return int(
        sum(
            numbers * bytes_each["q8_0" if kind in rewritten else kind.lower()]
            for kind, numbers in header.tensor_types.items()
        )
    )


def _read_folder(folder: Path) -> Model:
    config = read_config(folder)
    heads = int(config["num_attention_heads"])
    shapes = {name: tensor.shape for name, tensor in read_tensors(folder).items()}
    return Model(
        parameters=sum(map(math.prod, shapes.values())),
        embedding_parameters=sum(math.prod(shapes[name]) for name in (EMBEDDING, OUTPUT) if name in shapes),
        layers=int(config["num_hidden_layers"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A Hugging Face folder's `config.json`. Raises `BadCheckpoint` where it is unreadable or not a Llama's."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not ARCHITECTURES.intersection(config.get("architectures", [])):
            raise BadCheckpoint(
                str(path), Reason("checkpoint.architecture_of_none", known=tuple(sorted(ARCHITECTURES)))
            )
    except (OSError, ValueError, AttributeError, TypeError):
        raise BadCheckpoint(str(path), Reason("checkpoint.no_configuration")) from None
    missing = [key for key in ("num_attention_heads", "num_hidden_layers", "hidden_size") if key not in config]
    if missing:
        raise BadCheckpoint(str(path), Reason("checkpoint.lacks", names=", ".join(missing)))
    return dict(config)


def adapter_entries(folder: Path) -> tuple[Entry, Entry]:
    """A LoRA adapter's folder as an entry, and one for its base, which must be on this machine.

    Raises `BadCheckpoint` for what is no such adapter, and `BaseMissing`.
    """
    config, folder = adapter.read_adapter(folder), folder.resolve()
    named = str(config.get("base_model_name_or_path") or "")
    if not named:
        raise BadCheckpoint(str(folder), Reason("checkpoint.no_base", file=adapter.CONFIG))
    found = _base_folder(folder, named, str(config.get("revision") or ""))
    if found is None:
        raise BaseMissing(str(folder), named)
    name = folder.name.lower()
    base = entry_at(found, "hf", name=f"{name}-base", title=named.rpartition("/")[2] or found.name)
    return replace(entry_at(folder, "hf", name=name, title=folder.name), base=base.name), base


def _base_folder(folder: Path, named: str, revision: str) -> Path | None:
    """Beside the adapter, elsewhere on this machine, or where the Hub's downloads are."""
    for place in (folder / named, Path(named).expanduser()):
        if (place / "config.json").is_file():
            return place.resolve()
    return hub.cached(named, HUB_FILES, revision) if hub.is_repository(named) else None


def find_packaged(package: str) -> Path | None:
    """The GGUF file that an installed package carries, without importing the package."""
    found = util.find_spec(package) if package else None
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.rglob("*.gguf"))), None)

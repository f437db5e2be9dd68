"""What an entry's files are, and its model's shape: from the catalog, a header or a configuration, not from weights."""

from __future__ import annotations

import json
import math
from importlib import util
from pathlib import Path

from llama_demo.catalog import Entry
from llama_demo.checkpoints import gguf
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.checkpoints.meta_params import read_params
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.errors import BadCheckpoint
from llama_demo.placement import BYTES_EACH, Shape

ARCHITECTURES = frozenset({"LlamaForCausalLM", "LlamaForSequenceClassification"})
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
CONVERTED_TO: tuple[Quantization, ...] = ("q8_0", "q4_0")
_EMBEDDED_SHAPE = Shape(weight_bytes=145_000_000, layers=30, kv_heads=3, head_size=64)


def is_converted(entry: Entry) -> bool:
    """Whether the CPU's engine is given a file written here from a whole checkpoint."""
    return entry.format == "meta" or (entry.format == "hf" and entry.path is None)


def runs_in_transformers(entry: Entry, device: str) -> bool:
    """Whether transformers runs it from safetensors, on `device`, and not OpenVINO from a GGUF file."""
    on_gpu = device != "cpu" and entry.format in ("hf", "meta")
    return on_gpu or (entry.format == "hf" and entry.path is not None)


def wanted_files(entry: Entry) -> tuple[str, ...]:
    """The files of a repository that loading needs."""
    if entry.file:
        return (entry.file,)
    return META_FILES if entry.format == "meta" else HUB_FILES


def read_shape(entry: Entry, to: Quantization) -> Shape:
    """What the arithmetic needs, read from a header or a configuration, never from weights."""
    if entry.package:
        return _EMBEDDED_SHAPE
    if entry.path is None:
        stored = to if is_converted(entry) or not entry.quantization else entry.quantization
        weight_bytes = int(entry.parameters * BYTES_EACH[stored])
        return Shape(weight_bytes, entry.layers, entry.kv_heads, entry.head_size)
    if entry.format == "meta":
        params = read_params(entry.path)
        return Shape(int(params.parameters() * BYTES_EACH[to]), params.layers, params.kv_heads, params.head_dim)
    if entry.format == "gguf":
        header = gguf.read_header(entry.path)
        weight_bytes = entry.path.stat().st_size
        if gguf.needs_requantizing(header):
            weight_bytes = int(header.parameters * BYTES_EACH["q8_0"])
        return Shape(weight_bytes, header.block_count, header.head_count_kv, header.head_dim)
    config = read_config(entry.path)
    heads = int(config["num_attention_heads"])
    return Shape(
        weight_bytes=_weight_bytes(entry.path, to),
        layers=int(config["num_hidden_layers"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
    )


def read_config(folder: Path) -> dict[str, int]:
    """A Hugging Face folder's `config.json`. Raises `BadCheckpoint` where it is unreadable or not a Llama's."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not ARCHITECTURES.intersection(config.get("architectures", [])):
            raise BadCheckpoint(str(path), f"it describes none of {', '.join(sorted(ARCHITECTURES))}")
    except (OSError, ValueError, AttributeError, TypeError):
        raise BadCheckpoint(str(path), "it is not readable as a configuration") from None
    missing = [key for key in ("num_attention_heads", "num_hidden_layers", "hidden_size") if key not in config]
    if missing:
        raise BadCheckpoint(str(path), f"it lacks {', '.join(missing)}")
    return dict(config)


def _weight_bytes(folder: Path, to: Quantization) -> int:
    """As they are stored, or where 16 or 32 bits are asked for, each as so many."""
    if to not in ("f16", "f32"):
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return int(sum(math.prod(tensor.shape) for tensor in read_tensors(folder).values()) * BYTES_EACH[to])


def find_packaged(package: str) -> Path | None:
    """The GGUF file that an installed package carries, without importing the package."""
    found = util.find_spec(package) if package else None
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.rglob("*.gguf"))), None)

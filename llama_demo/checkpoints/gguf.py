"""What a GGUF file of a Llama says about itself, checked, and the ways in and out of that format.

`read_header` before anything else; `requantize`, `write_tokenizer` and `write_gguf` make the files an engine is given.
Knows no engine but the list of types that OpenVINO computes faithfully.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_demo.checkpoints.gguf_convert import write_gguf
from llama_demo.checkpoints.gguf_read import Container, Metadata, read_container
from llama_demo.checkpoints.gguf_requantize import requantize
from llama_demo.checkpoints.gguf_tokenizer import write_tokenizer
from llama_demo.reasons import Reason

__all__ = [
    "FAITHFUL_TYPES",
    "GGUFHeader",
    "read_header",
    "requantize",
    "unfaithful_types",
    "write_gguf",
    "write_tokenizer",
]

FAITHFUL_TYPES = frozenset({"F16", "Q8_0", "Q6_K", "Q4_0"})
"""The matrices' types whose values OpenVINO's GGUF reader keeps: it rounds the asymmetric ones (Q4_1: KL 0.54, Q4_K as
badly), and refuses F32."""


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """A Llama's own account of itself. Lengths are in tokens or in numbers, `bytes` is the whole file's."""

    path: Path
    architecture: str
    name: str
    tensor_types: Mapping[str, int]
    """How many numbers the matrices of each type have together, by the type's name (`Q8_0`); vectors are always read
    exactly."""
    context_length: int
    embedding_length: int
    feed_forward_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    tokenizer_model: str
    """`llama` (SentencePiece) or `gpt2` (byte-level)."""
    parameters: int
    bytes: int


def read_header(path: Path) -> GGUFHeader:
    """Raises `BadCheckpoint` for anything but a whole GGUF file of the llama architecture with all its tensors."""
    return header_of(read_container(path))


def header_of(container: Container) -> GGUFHeader:
    """The same from a container that has been read already."""
    metadata = Metadata(container.path, container.fields)
    architecture = metadata.text("general.architecture")
    if architecture != "llama":
        raise metadata.bad(Reason("checkpoint.architecture", kind=architecture))
    if container.fields.get("split.count", 1) != 1:
        raise metadata.bad(Reason("checkpoint.part"))
    heads, width = metadata.count("llama.attention.head_count"), metadata.count("llama.embedding_length")
    tokens = container.fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise metadata.bad(Reason("checkpoint.metadata_lack", name="tokenizer.ggml.tokens"))
    names = {tensor.name for tensor in container.tensors}
    blocks = metadata.count("llama.block_count")
    _check_tensors(metadata, names, blocks)
    return GGUFHeader(
        path=container.path,
        architecture=architecture,
        name=str(container.fields.get("general.name", container.path.stem)),
        tensor_types=_numbers(container),
        context_length=metadata.count("llama.context_length"),
        embedding_length=width,
        feed_forward_length=metadata.count("llama.feed_forward_length"),
        block_count=blocks,
        head_count=heads,
        head_count_kv=metadata.count("llama.attention.head_count_kv", heads),
        head_dim=metadata.count("llama.attention.key_length", max(1, width // heads)),
        vocab_size=len(tokens),
        tied_embeddings="output.weight" not in names,
        tokenizer_model=metadata.text("tokenizer.ggml.model"),
        parameters=sum(tensor.items for tensor in container.tensors),
        bytes=container.bytes,
    )


def unfaithful_types(header: GGUFHeader) -> tuple[str, ...]:
    """The types of its matrices that OpenVINO would not compute faithfully: they must be written again as another."""
    return tuple(sorted(set(header.tensor_types) - FAITHFUL_TYPES))


def _numbers(container: Container) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for tensor in container.tensors:
        if len(tensor.shape) > 1:
            found[tensor.type.name] += tensor.items
    return found


_BLOCK_TENSORS = (
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


def _check_tensors(metadata: Metadata, names: set[str], blocks: int) -> None:
    if blocks > len(names):
        raise metadata.bad(Reason("checkpoint.layers", layers=blocks, tensors=len(names)))
    wanted = [f"blk.{block}.{part}.weight" for block in range(blocks) for part in _BLOCK_TENSORS]
    for name in ("token_embd.weight", *wanted, "output_norm.weight"):
        if name not in names:
            raise metadata.bad(Reason("checkpoint.tensor_missing", name=name))

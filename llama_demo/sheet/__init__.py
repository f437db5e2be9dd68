"""The model sheet: what a model is, from its configuration, its header and its tokenizer; no weights are loaded.

`read_sheet` puts together what `config`, `parameters` and `tokens` find. It asks no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_demo import hub
from llama_demo.catalog import Entry
from llama_demo.checkpoints import gguf
from llama_demo.entry_files import find_packaged, wanted_files
from llama_demo.errors import BadCheckpoint
from llama_demo.sheet.config import Described, Field, Source, describe, fields_of
from llama_demo.sheet.parameters import Attention, Part, attention_of, count_parameters
from llama_demo.sheet.tokens import TokenizerFacts, facts_of, read_tokenizer

__all__ = ["Sheet", "files_of", "read_sheet"]

CACHE_BYTES = 2
"""A number of the KV cache in 16 bits, as the family's own figures have it."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """`source` says where the configuration is from; `parts` are empty and `attention` None where nothing tells it.
    `tokenizer` is None where its files are not on this machine."""

    name: str
    title: str
    source: Source
    fields: tuple[Field, ...]
    parts: tuple[Part, ...]
    attention: Attention | None
    kv_bytes_per_token: int
    context_tokens: int
    tokenizer: TokenizerFacts | None
    rewritten_types: tuple[str, ...] = ()
    """The types of a GGUF file's matrices that are written again as another before it is loaded."""

    @property
    def parameters(self) -> int:
        return sum(part.count for part in self.parts)


def files_of(entry: Entry) -> Path | None:
    """The folder or the file of `entry` on this machine; None where it would have to be fetched."""
    path = entry.path or find_packaged(entry.package)
    if (
        path is None
        and entry.repo
        and (folder := hub.cached(entry.repo, wanted_files(entry), entry.revision)) is not None
    ):
        path = folder / entry.file if entry.file else folder
    return path


def read_sheet(entry: Entry) -> Sheet:
    """Raises `BadCheckpoint` for files that are no Llama's."""
    files = files_of(entry)
    described = describe(entry, files)
    tokenizer = None
    if files is not None:
        try:
            tokenizer = facts_of(read_tokenizer(files), described.values, entry.name)
        except BadCheckpoint:
            tokenizer = None
    attention = attention_of(described.values) if described.values else None
    return Sheet(
        name=entry.name,
        title=entry.title,
        source=described.source,
        fields=fields_of(described),
        parts=_parts(described),
        attention=attention,
        kv_bytes_per_token=0 if attention is None else attention.kv_numbers_per_token * CACHE_BYTES,
        context_tokens=int(described.values.get("max_position_embeddings") or entry.context_tokens),
        tokenizer=tokenizer,
        rewritten_types=gguf.unfaithful_types(gguf.read_header(files)) if files and files.is_file() else (),
    )


def _parts(described: Described) -> tuple[Part, ...]:
    return count_parameters(described.values) if described.values else ()

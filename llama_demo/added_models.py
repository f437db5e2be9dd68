"""The models that the owner added in the page: kept in a catalog file of their own, so that a restart knows them.

One whose files have gone is left out. What is added is checked first; no weights are read, and nothing is downloaded
but a repository's configuration.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_demo import hub
from llama_demo.catalog import Entry, entry_at
from llama_demo.catalog_file import read_catalog_file
from llama_demo.checkpoints.convert import kind_of
from llama_demo.checkpoints.whole import replacing
from llama_demo.entry_files import read_config, read_model
from llama_demo.errors import BadCatalog, BadCheckpoint, InvalidParameter
from llama_demo.reasons import Reason
from llama_demo.sheet.parameters import attention_of, count_parameters

_log = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class AddedModels:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries: tuple[Entry, ...] = self._read()

    def add(self, entry: Entry) -> None:
        """Keeps `entry`, in the place of one of its name. Raises `DiskFull`."""
        self.entries = (*(other for other in self.entries if other.name != entry.name), entry)
        document = {"model": [_written(each) for each in self.entries]}
        raw = json.dumps(document, indent=2).encode()
        with replacing(self._file, len(raw)) as file:
            file.write(raw)

    def _read(self) -> tuple[Entry, ...]:
        try:
            document = json.loads(self._file.read_bytes())
            models = [each for each in document["model"] if "path" not in each or Path(each["path"]).exists()]
            if not models:
                return ()
            if len(models) < len(document["model"]):
                self._file.write_text(json.dumps({"model": models}, indent=2), encoding="utf-8")
            return read_catalog_file(self._file).entries
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, LookupError, TypeError, BadCatalog):
            _log.warning("%s cannot be read: the models that were added are not listed", self._file)
            return ()


def entry_for(text: str, taken: Sequence[str]) -> Entry:
    """An entry for a folder, a file or a repository that `text` names; its own name is none of `taken`.

    Raises `BadCheckpoint` for what is no Llama, `InvalidParameter` for what is nothing, and for a repository what
    `hub.download` raises.
    """
    text = text.strip()
    if (path := _existing(text)) is not None:
        return local_entry(path, taken)
    if _REPOSITORY.fullmatch(text):
        return _repository_entry(text, taken)
    if text and (text.startswith(("/", "~", ".")) or text.endswith(".gguf")):
        raise BadCheckpoint(text, Reason("checkpoint.no_path"))
    raise InvalidParameter("model", text, Reason("expected.to_add"))


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # no path on any machine
        return None


def local_entry(path: Path, taken: Sequence[str], title: str = "") -> Entry:
    """An entry for a file or a folder on this machine. Its header or configuration is read. Raises `BadCheckpoint`."""
    path = path.resolve()
    if path.is_file() and path.suffix != ".gguf":
        raise BadCheckpoint(str(path), Reason("checkpoint.only_gguf"))
    kind = "gguf" if path.is_file() else kind_of(path)
    name = _free_name(path.stem if kind == "gguf" else path.name, taken)
    entry = entry_at(path, kind, name=name, title=title or path.stem)
    read_model(entry)
    return entry


def _repository_entry(repo: str, taken: Sequence[str]) -> Entry:
    config = read_config(hub.download(repo, ["config.json"], lambda *_: None))
    attention = attention_of(config)
    parts = {part.name: part.count for part in count_parameters(config)}
    return Entry(
        name=_free_name(repo.rpartition("/")[2], taken),
        title=repo.rpartition("/")[2],
        repo=repo,
        format="hf",
        access="open",
        good_for="models.added",
        licence="",
        link=f"https://huggingface.co/{repo}",
        parameters=sum(parts.values()),
        embedding_parameters=parts["embedding"] + parts["head"],
        layers=attention.layers,
        kv_heads=attention.kv_heads,
        head_size=attention.head_size,
        context_tokens=int(config.get("max_position_embeddings") or 0),
    )


def _free_name(text: str, taken: Sequence[str]) -> str:
    """`text` as a name in a catalog, with a number where it is taken."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:70] or "model"
    numbers = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(each for each in numbers if each not in taken)


def _written(entry: Entry) -> dict[str, Any]:
    """The entry as a catalog file has it: what is empty is left out."""
    values = {name: value for name, value in asdict(entry).items() if value not in ("", 0, None)}
    if entry.path is not None:
        del values["access"]
        values["path"] = str(entry.path)
    return values

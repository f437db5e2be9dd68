"""Catalog files: what a model's entry may say, in TOML or JSON, checked when read, with the line at fault.

It knows the form of an entry, and not which models there are.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from llama_demo.errors import BadCatalog

Format = Literal["gguf", "hf", "meta", "remote"]
Access = Literal["open", "gated", "local"]
_MOST_BYTES = 1_000_000
_MOST_COUNT = 10**13


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. `good_for` is a key of the message table, or the owner's own sentence; `path` is set for a file or
    folder on this machine. The shape (`parameters` to `context_tokens`) is 0 where only its files know it."""

    name: str
    title: str
    repo: str
    format: Format
    access: Access
    good_for: str
    licence: str
    link: str
    parameters: int = 0
    embedding_parameters: int = 0
    """Of `parameters`, those of the embedding and the head, which 8 and 4 bits on a GPU leave as they are."""
    layers: int = 0
    kv_heads: int = 0
    head_size: int = 0
    context_tokens: int = 0
    quantization: Literal["", "q4_0", "q8_0", "f16"] = ""
    """The type of a GGUF file's matrices, where it is not read from the file."""
    file: str = ""
    """The GGUF file in `repo`."""
    revision: str = ""
    """A commit, tag or branch of `repo`; empty for the newest."""
    pretraining_tp: int = 0
    """In so many slices matrices are multiplied where transformers runs it; 0 for what the checkpoint says."""
    package: str = ""
    path: Path | None = None
    base: str = ""
    """The entry that a LoRA adapter, which `path` or `repo` then is, belongs to; empty for whole models."""
    base_url: str = ""
    """Where another server runs it, behind OpenAI's API: the format is `remote` then, and there are no files."""
    remote_model: str = ""
    """What that server calls it."""
    token_variable: str = ""
    """The environment variable that holds the token for that server; empty where it wants none."""

    @property
    def has_weights(self) -> bool:
        """Whether it is a whole model with files: no adapter, and not another server's."""
        return not self.base and self.format != "remote"


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """What a file says. `visitors` names the entries that visitors may choose; None where it does not say. `line_of`
    gives the line of a field, of the entry of a number or of the whole."""

    entries: tuple[Entry, ...]
    visitors: tuple[str, ...] | None
    line_of: Callable[[str, int | None], int] = lambda field, number: 1  # noqa: ARG005


def _matching(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(allowed)}", lambda value: value in allowed


_SENTENCE = ("a text of 1 to 300 characters", _matching(r"[^\x00-\x1f]{1,300}"))
_COUNT = (
    "a whole number above 0",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST_COUNT,
)
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("small letters, digits, dots, dashes", _matching(r"[a-z0-9][a-z0-9._-]{0,79}")),
    "title": _SENTENCE,
    "repo": ("OWNER/NAME on the Hub", _matching(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")),
    "format": _one_of("gguf", "hf", "meta"),
    "access": _one_of("open", "gated"),
    "good_for": _SENTENCE,
    "licence": _SENTENCE,
    "link": ("a web address", _matching(r"https?://[^\s<>\"']{1,300}")),
    "parameters": _COUNT,
    "embedding_parameters": _COUNT,
    "layers": _COUNT,
    "kv_heads": _COUNT,
    "head_size": _COUNT,
    "context_tokens": _COUNT,
    "quantization": _one_of("q4_0", "q8_0", "f16"),
    "file": ("the name of a .gguf file", _matching(r"[\w.-]{1,190}\.gguf")),
    "revision": ("a commit, tag or branch", _matching(r"[\w][\w./-]{0,99}")),
    "pretraining_tp": ("a whole number from 1 to 64", lambda value: type(value) is int and 1 <= value <= 64),
    "package": ("a Python package's name", _matching(r"[A-Za-z_]\w{0,79}")),
    "path": ("a file's or folder's path", _matching(r"[^\x00]{1,1000}")),
    "base": ("the name of a model", _matching(r"[a-z0-9][a-z0-9._-]{0,79}")),
    "adapter": ("a folder's path, or OWNER/NAME on the Hub", _matching(r"[^\x00]{1,1000}")),
    "base_url": (
        "the address of an OpenAI-compatible API, as http://HOST:PORT/v1, without a user, a token or a query",
        _matching(r"https?://[A-Za-z0-9.\-\[\]:]{1,250}(/[A-Za-z0-9._~/\-]{0,200})?"),
    ),
    "remote_model": ("the model's name on that server", _matching(r"[^\x00-\x20\x7f]{1,200}")),
    "token_variable": ("the name of an environment variable", _matching(r"[A-Za-z_]\w{0,99}")),
}
_REMOTE = (
    *("name", "title", "good_for", "licence", "link", "parameters", "context_tokens"),
    *("base_url", "remote_model", "token_variable"),
)
"""What an entry may say whose model another server runs."""
_SHAPE = ("parameters", "layers", "kv_heads", "head_size")


def read_catalog_file(path: Path) -> CatalogFile:
    """Raises `BadCatalog` with the line and the field at fault."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise BadCatalog(str(path), 1, "file", f"cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadCatalog(str(path), line, "text", "is not UTF-8") from None
    return _Reader(path, text.replace("\r\n", "\n")).read()


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._is_json = path.suffix.lower() == ".json"

    def read(self) -> CatalogFile:
        document = self._parsed()
        for key in document:
            if key not in ("model", "visitors"):
                raise self._bad(self._line(key), key, "is not known here: model and visitors are")
        models = document.get("model")
        if not isinstance(models, list) or not models:
            raise self._bad(self._line("model"), "model", "must be a list of one entry or more")
        entries: list[Entry] = []
        for number, values in enumerate(models):
            entry = self._entry(number, values)
            if entry.name in {other.name for other in entries}:
                raise self._bad(self._line("name", number), "name", f"{entry.name} is there twice")
            entries.append(entry)
        return CatalogFile(tuple(entries), self._visitors(document.get("visitors")), self._line)

    def _parsed(self) -> dict[str, Any]:
        try:
            document = json.loads(self._text) if self._is_json else tomllib.loads(self._text)
        except json.JSONDecodeError as error:
            raise self._bad(error.lineno, "text", f"is not JSON: {error.msg}") from None
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"^(.*?) \(at line (\d+)", str(error))
            line = int(found[2]) if found else self._text.count("\n") + 1
            raise self._bad(line, "text", f"is not TOML: {found[1] if found else error}") from None
        except RecursionError:
            raise self._bad(1, "text", "is nested too deeply") from None
        if not isinstance(document, dict):
            raise self._bad(1, "text", "must be an object with model in it")
        return document

    def _entry(self, number: int, values: Any) -> Entry:
        if not isinstance(values, Mapping):
            raise self._bad(self._start(number), "model", "must be an entry with a name and more")
        for field, value in values.items():
            rule = _RULES.get(field)
            if rule is None:
                raise self._bad(self._line(field, number), field, f"is not known here: {', '.join(_RULES)} are")
            if not rule[1](value):
                raise self._bad(self._line(field, number), field, f"is {str(value)[:60]!r}, but it must be {rule[0]}")
        if "adapter" in values or "base" in values:
            values = self._adapter(number, values)
        if "base_url" in values or "remote_model" in values or "token_variable" in values:
            values = self._remote(number, values)
        wanted = [field.name for field in fields(Entry) if field.default is MISSING]
        values = {"title": values.get("name"), "repo": "", "access": "open", "licence": "", "link": "", **values}
        for field in wanted:
            if field not in values:
                raise self._bad(self._start(number), field, "is missing")
        return Entry(**self._placed(number, values))

    def _placed(self, number: int, values: dict[str, Any]) -> dict[str, Any]:
        """The same with its path found; of a repository, everything must be known that nothing is downloaded for."""
        if values["format"] == "remote":
            return values
        if bool(values["repo"]) == ("path" in values):
            raise self._bad(self._start(number), "repo", "or path is needed, and not both")
        needed = ("parameters",) if values.get("base") else _SHAPE
        if "path" in values:
            return {**values, "path": self._existing(number, values["path"]), "access": "local"}
        if any(not values.get(field) for field in needed):
            raise self._bad(self._start(number), ", ".join(needed), "are needed, as nothing is downloaded to know them")
        if values["format"] == "gguf" and not (values.get("file") or values.get("package")):
            raise self._bad(self._start(number), "file", "is missing: a repository may have many .gguf files")
        return values

    def _adapter(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same with the adapter's place as that of a model."""
        for field in ("adapter", "base"):
            if field not in values:
                raise self._bad(self._start(number), field, "is missing: an adapter and its base belong together")
        for field in ("repo", "path", "format", "file", "package"):
            if field in values:
                raise self._bad(self._line(field, number), field, "has no place beside adapter")
        place, others = values["adapter"], {name: value for name, value in values.items() if name != "adapter"}
        is_repo = _RULES["repo"][1](place) and not (self._path.parent / place).exists()
        if not is_repo:
            self._existing(number, place, "adapter")
        return {**others, "format": "hf", "repo" if is_repo else "path": place}

    def _remote(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same as that of a model without files; where nothing else is said, its name there is its name here."""
        if "base_url" not in values:
            raise self._bad(self._start(number), "base_url", "is missing: remote_model and token_variable belong to it")
        for field in values:
            if field not in _REMOTE:
                raise self._bad(self._line(field, number), field, "has no place beside base_url")
        return {"remote_model": values.get("name"), **values, "format": "remote"}

    def _existing(self, number: int, text: str, field: str = "path") -> Path:
        path = (self._path.parent / Path(text).expanduser()).resolve()
        if not path.exists():
            raise self._bad(self._line(field, number), field, f"is {text}, which is not there")
        return path

    def _visitors(self, names: Any) -> tuple[str, ...] | None:
        if names is None:
            return None
        if not isinstance(names, list) or not all(_RULES["name"][1](name) for name in names):
            raise self._bad(self._line("visitors"), "visitors", "must be a list of models' names")
        return tuple(names)

    # Where a field stands: neither parser tells, so it is looked for from where its entry begins.

    def _start(self, number: int) -> int:
        return self._text.count("\n", 0, self._offset(number)) + 1

    def _line(self, field: str, number: int | None = None) -> int:
        offset = 0 if number is None else self._offset(number)
        pattern = rf'"{re.escape(field)}"\s*:' if self._is_json else rf'^[ \t]*"?{re.escape(field)}"?[ \t]*='
        found = re.compile(pattern, re.MULTILINE).search(self._text, offset)
        return self._text.count("\n", 0, found.start() if found else offset) + 1

    def _offset(self, number: int) -> int:
        if not self._is_json:
            heads = [
                found.start() for found in re.finditer(r"^[ \t]*\[\[[ \t]*model[ \t]*\]\]", self._text, re.MULTILINE)
            ]
            return heads[number] if number < len(heads) else 0
        found = re.search(r'"model"\s*:\s*\[', self._text)
        offset = found.end() if found else 0
        for _ in range(number):
            offset = self._after_blanks(offset)
            _, offset = json.JSONDecoder().raw_decode(self._text, offset)
        return self._after_blanks(offset)

    def _after_blanks(self, offset: int) -> int:
        found = re.compile(r"[\s,]*").match(self._text, offset)
        return found.end() if found else offset

    def _bad(self, line: int, field: str, problem: str) -> BadCatalog:
        return BadCatalog(str(self._path), line, field, problem)

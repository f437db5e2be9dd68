"""What may be done with a model's weights, and the files and metadata that say so where they are passed on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FREE = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
"""Licences under which weights may be passed on as they are, and the Hub's names of them."""
_OTHERS = {"Llama 2 Community License": "llama2", "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0"}
_NOTICES = {
    "Llama 2 Community License": "Llama 2 is licensed under the LLAMA 2 Community License, "
    "Copyright (c) Meta Platforms, Inc. All Rights Reserved.\n"
}
_COPIED = ("LICENSE*", "LICENCE*", "USE_POLICY*")
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True, slots=True)
class Licence:
    """Of a model; both empty where nobody said."""

    name: str
    link: str

    @property
    def free(self) -> bool:
        """Whether nobody needs to be asked before the weights are passed on."""
        return self.name in FREE

    @property
    def text(self) -> str:
        return " ".join(filter(None, (self.name, self.link)))

    def metadata(self) -> dict[str, str]:
        """As the Hub's model cards have it."""
        named = {**FREE, **_OTHERS}.get(self.name)
        if named:
            return {"license": named}
        link = {"license_link": self.link} if self.link else {}
        return {"license": "other", "license_name": self.name or "unknown", **link}

    def write_files(self, source: Path, folder: Path) -> None:
        """The licence files that came with the weights in `source`, and the notice that the licence asks for."""
        for pattern in _COPIED if source.is_dir() else ():
            for file in source.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        if self.name in _NOTICES:
            (folder / "NOTICE").write_text(_NOTICES[self.name], encoding="utf-8")


def repository(name: str) -> str:
    """`name` where it could be a repository of the Hub, else nothing."""
    return name if _REPOSITORY.fullmatch(name) else ""


def front(values: Mapping[str, str], base: str) -> str:
    """A model card's metadata. A JSON text is a YAML text: what a stranger's file says of itself stays one value."""
    named = {"base_model": repository(base)} if repository(base) else {}
    lines = [f"{key}: {json.dumps(value)}" for key, value in {**values, **named}.items()]
    return "\n".join(("---", *lines, "---", "", ""))

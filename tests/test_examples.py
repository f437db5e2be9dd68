"""Every command and every example of the documents, run as it is printed, beside the app that they speak of.

What sets the project up (`dev.py`) is not among them: it would install it anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.checkpoints import meta_model
from tests.test_app import App, running

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/api.md", "docs/commands.md", "docs/models.md")
PRINTED = "http://127.0.0.1:7860"
COMMAND_SECONDS = 120

pytestmark = pytest.mark.slow


def blocks(page: str, language: str) -> list[str]:
    """What stands between fences of `language`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fences if name == language]


def commands(page: str) -> list[str]:
    """The blocks for a shell, but those that set the project up."""
    return [block for block in blocks(page, "") if re.search(r"(curl|python -m llama_demo) ", block)]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, embedded_gguf: Path) -> Iterator[App]:
    with running(tmp_path_factory.mktemp("app")) as started:
        yield started


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_examples_of_a_document_run_one_after_the_other(
    page: str, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for example in blocks(page, "python"):
        capsys.readouterr()
        exec(example.replace(PRINTED, app.address), names)
        assert capsys.readouterr().out.strip(), example


@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page in PAGES for command in commands(page)], ids=lambda value: value[:40]
)
def test_a_command_of_a_document_does_what_it_says(
    page: str, command: str, app: App, tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    (tmp_path / "notes.txt").write_text("The harbour wakes before the sun, and the first boats go out.")
    (tmp_path / "prompts.csv").write_text("prompt\nOnce upon a time\nThe boats\n")
    (tmp_path / "reviews.csv").write_text("text\nI love it.\nBroken after a day.\n")
    meta_model.write(tmp_path / "llama-2-7b-chat", meta_model.Shape(), tiny_sentencepiece_folder / "tokenizer.model")
    lines = command.replace(PRINTED, app.address).replace("curl -s ", "curl -sSf ")
    lines = lines.replace(".venv/bin/python ", f"{sys.executable} ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout.strip() or done.stderr.strip()


def test_what_assistants_are_given_leads_to_the_tools(app: App) -> None:
    async def tools(url: str) -> set[str]:
        async with streamable_http_client(url) as (reads, writes, _), ClientSession(reads, writes) as session:
            await session.initialize()
            return {tool.name for tool in (await session.list_tools()).tools}

    (given,) = blocks("docs/api.md", "json")
    (server,) = json.loads(given)["mcpServers"].values()
    found = asyncio.run(tools(server["url"].replace(PRINTED, app.address)))
    assert found == {"chat", "generate", "score", "classify"}

"""What the hosting guides name: settings and models that there are, entries and a service that can be read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED, packaged, read_catalog
from llama_demo.settings import OWNER_PASSWORD, options

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("guides.md", "hosting.md")


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text("guides.md"), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_is_a_setting_of_ours(page: str) -> None:
    named = set(re.findall(r"LLAMA_DEMO_[A-Z_]+", text(page)))
    assert named
    assert named <= {OWNER_PASSWORD, *(option.variable for option in options())}


@pytest.mark.parametrize("page", PAGES)
def test_every_model_that_is_started_is_in_the_catalog_or_in_the_guides_own(page: str, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(block("toml"), encoding="utf-8")
    catalog, own = read_catalog("on-sagemaker", tmp_path / "models.toml")
    assert catalog.find(own).base_url
    named = set(re.findall(r"(?:--model |LLAMA_DEMO_MODEL=)([\w.-]+\w)", text(page)))
    assert named
    assert named <= {EMBEDDED.name, own, *(entry.name for entry in packaged())}


def test_the_service_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "llama-demo.service"
    unit.write_text(block("ini").replace("/opt/llama-demo/app/.venv/bin/python", sys.executable), encoding="utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert unit.name not in done.stderr, "other units may have faults of their own"

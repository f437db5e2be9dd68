"""What runs on the repository's host: workflows that name only what is there, and the push to the Space."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import Refusal, pushing

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROGRAMS = {"python", "bash", "uv", "gh", "test"}
"""What a step may call: the host's own, and what a step before it installs."""
ACTIONS = {"actions/checkout", "actions/setup-python"}


def read(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.stem}.{name}", job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def steps() -> list[dict[str, Any]]:
    return [step for _, job in jobs() for step in job.get("steps", ())]


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_is_one_that_can_be_read(path: Path) -> None:
    assert read(path)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_what_it_may_and_how_long_it_may_take(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"]
    for job in workflow["jobs"].values():
        assert "uses" in job or job["timeout-minutes"] <= 60


def test_every_command_of_a_step_and_every_file_it_names_is_there() -> None:
    commands = [shlex.split(step["run"]) for step in steps() if "run" in step]
    assert commands
    for program, *arguments in commands:
        assert program in PROGRAMS
        for name in arguments:
            if re.fullmatch(r"[\w./-]+\.(py|sh|txt|toml)|[\w.]+/run", name):
                assert (ROOT / name).is_file(), name


def test_actions_are_the_hosts_own_or_ours() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert {name.split("@")[0] for name in used} == ACTIONS
    called = [job["uses"] for _, job in jobs() if "uses" in job]
    assert called
    assert all((ROOT / name).is_file() for name in called)


def test_what_needs_a_secret_is_called_with_it_and_by_a_release() -> None:
    space, release = read(GITHUB / "workflows" / "space.yml"), read(GITHUB / "workflows" / "release.yml")
    # YAML reads the key `on` as true
    assert set(space[True]) == {"workflow_call", "workflow_dispatch"}
    assert release[True] == {"push": {"tags": ["v*"]}}
    assert release["jobs"]["space"]["secrets"] == "inherit"
    assert release["jobs"]["space"]["needs"] == "wheel"
    with_secret = [step for step in steps() if "secrets." in str(step)]
    assert [step["run"] for step in with_secret] == ["python .github/push_space.py"]


def push(environment: dict[str, str]) -> int:
    status: int = runpy.run_path(str(GITHUB / "push_space.py"))["main"](environment)
    return status


@pytest.mark.parametrize("environment", [{}, {"HF_SPACE": "owner/space"}, {"HF_TOKEN": "hf_of_a_test"}])
def test_without_a_space_and_a_token_nothing_is_pushed(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pushing(tmp_path, monkeypatch) as behaviour:
        assert push(environment) == 0
    assert not behaviour.pushed


def test_a_push_takes_what_a_space_needs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pushing(tmp_path, monkeypatch) as behaviour:
        assert push({"HF_SPACE": "owner/space", "HF_TOKEN": "hf_of_a_test"}) == 0
    files = behaviour.pushed["owner/space"]
    assert files["README.md"] == (ROOT / "README.md").read_bytes()
    assert files["app.py"] == (ROOT / "app.py").read_bytes()
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "llama_demo").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= set(files)
    assert not [name for name in files if name.startswith(("tests", "benchmarks", "."))]


def test_a_secret_that_the_hub_refuses_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pushing(tmp_path, monkeypatch) as behaviour:
        behaviour.refusals["owner/space"] = Refusal(401, message="Invalid credentials in Authorization header")
        assert push({"HF_SPACE": "owner/space", "HF_TOKEN": "hf_of_a_test"}) == 1
    assert not behaviour.pushed
    said = capsys.readouterr().err
    assert said.startswith("owner/space could not be written with the secret HF_TOKEN: Invalid credentials")
    assert "hf_of_a_test" not in said

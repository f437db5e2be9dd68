"""The Dockerfile's steps without a container engine: parsed from the file, and run in a Debian root made on the spot.

It knows the instructions that our file has, and refuses any other. What they see of this machine is its network, its
certificates, and its settings for pip.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import string
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("debootstrap", "unshare", "chroot", "apt-get")
PYTHON = "python3,python3-venv,ca-certificates"
"""What the base image has beside the system."""


def missing() -> str:
    """Why no root can be made here; empty where one can."""
    if os.name == "nt" or os.getuid() != 0:
        return "making a root needs to be root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "no mounts are allowed here"
    return "" if _mirror() else "this is no Debian"


def _mirror() -> str:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


@dataclass
class Root:
    """A folder with a system in it, and what an image says of its processes."""

    folder: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    workdir: str = "/"
    user: str = "0"
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def command(self, command: Sequence[str], extra: Mapping[str, str] | None = None) -> list[str]:
        """What runs `command` inside, with mounts that end with it."""
        mounts = [f"mount -t proc proc {self.folder}/proc"]
        mounts += [f"mount --rbind /{name} {self.folder}/{name}" for name in ("dev", "sys")]
        for path in _seen():
            inside = self.folder / path.relative_to("/")
            mounts.append(f"mount --bind {path} {inside}")
            if path.is_dir():
                inside.mkdir(parents=True, exist_ok=True)
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.touch()
        environment = {**_pip_settings(), **self.environment, **(extra or {})}
        variables = [f"{name}={value}" for name, value in environment.items()]
        start = ["env", "-i", *variables, "sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        changed = ["chroot", f"--userspec={self.user}:{self.user}", str(self.folder), *start]
        return ["unshare", "--mount", "sh", "-c", f"{' && '.join(mounts)} && exec {shlex.join(changed)}"]

    def run(self, command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        done = subprocess.run(
            self.command(command, extra), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-4000:]}"

    def is_healthy(self, extra: Mapping[str, str]) -> bool:
        """What the image's health check says of the process that was started with `extra`."""
        return subprocess.run(self.command(self.health, extra), check=False, capture_output=True).returncode == 0


def _seen() -> list[Path]:
    """Of this machine: its names, its certificates, and where pip finds packages here."""
    named = os.environ.get("PIP_FIND_LINKS", "/nowhere")
    paths = ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip", named)
    return [path for path in map(Path, paths) if path.is_absolute() and path.exists()]


def _pip_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


@dataclass(frozen=True)
class Instruction:
    keyword: str
    value: str


def read(dockerfile: Path) -> Iterator[Instruction]:
    """Each instruction, its continued lines as one."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, value = line.strip().partition(" ")
            yield Instruction(keyword, value.strip())


def build(dockerfile: Path, folder: Path) -> Root:
    """The last stage's root, under `folder`."""
    base = folder / "base"
    suite = next(one.value for one in read(dockerfile) if one.keyword == "ARG").rpartition("-")[2]
    make = ["debootstrap", "--variant=minbase", f"--include={PYTHON}", suite, str(base), _mirror()]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    stages: dict[str, Root] = {}
    root = Root(base)
    arguments: dict[str, str] = {}
    for one in read(dockerfile):
        if one.keyword == "FROM":
            name = one.value.partition(" AS ")[2] or "last"
            subprocess.run(["cp", "-a", base, folder / name], check=True)
            root = stages[name] = Root(folder / name)
        elif one.keyword == "ARG":
            name, _, default = one.value.partition("=")
            arguments[name] = shlex.split(default)[0] if shlex.split(default) else ""
        else:
            _apply(one, root, stages, arguments, dockerfile.parent)
    return root


def _apply(
    one: Instruction, root: Root, stages: Mapping[str, Root], arguments: Mapping[str, str], context: Path
) -> None:
    value: Any = json.loads(one.value) if one.value.startswith("[") else one.value
    if one.keyword == "RUN":
        root.run(["sh", "-c", value], arguments)
    elif one.keyword == "COPY":
        _copy(shlex.split(value), root, stages, context)
    elif one.keyword == "ENV":
        for name, text in (part.split("=", 1) for part in shlex.split(value)):
            root.environment[name] = string.Template(text).substitute(root.environment)
    elif one.keyword == "WORKDIR":
        root.workdir = value
        (root.folder / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif one.keyword == "USER":
        root.user = value
    elif one.keyword == "HEALTHCHECK":
        root.health = json.loads(value.partition("CMD ")[2])
    elif one.keyword == "ENTRYPOINT":
        root.entrypoint = value
    else:
        assert one.keyword in ("VOLUME", "EXPOSE"), f"{one.keyword} is not known here"


def _copy(words: list[str], root: Root, stages: Mapping[str, Root], context: Path) -> None:
    *sources, target = words
    if sources[0].startswith("--from="):
        context = stages[sources.pop(0).partition("=")[2]].folder
    into = root.folder / os.path.join(root.workdir, target).lstrip("/")
    for source in sources:
        path = context / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into)

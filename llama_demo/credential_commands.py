"""The commands that make lines for the files of API keys and of users."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable

from llama_demo.credentials import new_key, password_line
from llama_demo.messages import Messages


def add_key_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    """Those of `new-api-key`."""
    command.add_argument("name", nargs="?", default="", help=words("cli.key_name"))


def add_password_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    """Those of `hash-password`."""
    command.add_argument("name", help=words("cli.password_name"))


def run_new_key(parsed: argparse.Namespace, words: Messages, say: Callable[[str], None]) -> int:
    """Prints the line for the file; the key itself goes to stderr, so that `>> FILE` does not keep it."""
    key, line = new_key(" ".join(parsed.name.split()))
    print(words("cli.new_key", secret=key), file=sys.stderr)
    say(line)
    return 0


def run_hash_password(parsed: argparse.Namespace, words: Messages, say: Callable[[str], None]) -> int:
    """Asks for the password, or reads it from a pipe. Raises `InvalidParameter`."""
    asked = sys.stdin.isatty()
    password = getpass.getpass(words("cli.password")) if asked else sys.stdin.readline().rstrip("\n")
    say(password_line(parsed.name, password))
    return 0

"""The arguments of `generate`, `score` and `classify`. It imports nothing that these commands need to run."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from llama_demo.messages import Messages
from llama_demo.settings import add_arguments
from llama_demo.values import Sampling

RUN_SETTINGS = (
    "model",
    "catalog",
    "device",
    "dtype",
    "reproducible",
    "cache_dir",
    "memory_gb",
    "context_tokens",
    "concurrent",
)
"""The settings that say how a model runs; the others are the page's."""
TOP_K = 5


def add_generate_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    """A flag for each field of `Sampling`, apart from the settings: `--max-new-tokens` is one of both."""
    add_source_arguments(command, words, "prompt")
    for field in fields(Sampling):
        default = "" if field.default is None else field.default
        command.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=f"sampling_{field.name}",
            metavar="NUMBER",
            help=words(f"cli.{field.name}", default=default),
        )
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help=words("cli.stop"))
    command.add_argument("--n", default="1", metavar="NUMBER", help=words("cli.n"))
    command.add_argument("--trim", action="store_true", help=words("cli.trim"))
    command.add_argument("--as-chat", action="store_true", help=words("cli.as_chat"))


def add_score_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    add_source_arguments(command, words, "text")
    command.add_argument("--top-k", default=str(TOP_K), metavar="NUMBER", help=words("cli.score_top_k", default=TOP_K))


def add_classify_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    add_source_arguments(command, words, "text")
    command.add_argument("--labels", metavar="A,B", help=words("cli.labels"))
    command.add_argument("--classifier", metavar="NAME", help=words("cli.classifier"))
    command.add_argument("--instruction", metavar="TEXT", help=words("cli.instruction"))
    command.add_argument("--threshold", default="0", metavar="NUMBER", help=words("cli.threshold"))


def add_source_arguments(command: argparse.ArgumentParser, words: Messages, column: str) -> None:
    """One text, or a file whose texts stand in a column that is called `column` unless another is given."""
    command.add_argument("text", nargs="?", metavar=column.upper(), help=words("cli.text"))
    command.add_argument("--input", type=Path, metavar="FILE", help=words("cli.input"))
    command.add_argument("--output", type=Path, metavar="FILE", help=words("cli.output"))
    command.add_argument("--column", default=column, metavar="NAME", help=words("cli.column", default=column))
    command.add_argument("--json", action="store_true", help=words("cli.json"))
    add_arguments(command, RUN_SETTINGS)

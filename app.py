"""Starts the app as `python -m llama_demo serve` does: what a Space runs, and the shortest way to run it yourself."""

import os
import sys

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401 - a GPU is lent only to those who import it before torch

from llama_demo.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))

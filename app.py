"""Starts the app as `python -m llama_demo serve` does: what a Space runs, and the shortest way to run it yourself."""

import sys

from llama_demo.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))

"""The log: one line an event, with no word of what visitors write unless the owner asks for it."""

from __future__ import annotations

import logging
import sys

LOG = logging.getLogger("llama_demo")


def start_logging(*, verbose: bool = False) -> None:
    """Sends our lines to stderr. Called by the command line alone: a library never configures logging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.handlers = [handler]
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    LOG.propagate = False


def one_line(text: str) -> str:
    """`text` with every control character escaped, so that nobody can forge a line of the log."""
    return text.encode("unicode_escape").decode("ascii")

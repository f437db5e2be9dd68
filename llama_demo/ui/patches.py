"""All that we change in Gradio from outside: what it does, as seen in Gradio 6.31, and why not here.

Each has a test in `tests/ui/test_patches.py`, which fails when Gradio no longer does what is changed, so that the patch
can go, or when the patch no longer reaches it.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import util
from pathlib import Path
from traceback import extract_tb
from types import SimpleNamespace
from typing import Any, NoReturn

from annotated_types import MaxLen
from gradio import data_classes, processing_utils, queueing, routes, state_holder
from gradio.utils import LRUCache

from llama_demo.observe import LOG

_LOOK_SECONDS = 0.01
_NAME_CHARACTERS = 64


def patch_gradio() -> None:
    """Before a page is built; again does nothing more."""
    keep_no_statistics()
    skip_matplotlib()
    keep_visits_small()
    reach_itself_directly()
    fetch_nothing()
    shorten_names()
    shorten_complaints()


def keep_no_statistics() -> None:
    """Gradio reports its use to its makers, keeps the last ten thousand events, and sums them all up after every one:
    a reply takes longer the more there have been. Nobody here reads that. Its queue reads these variables when a page
    is made; it has no other switch for them.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"


def skip_matplotlib() -> None:
    """Gradio tries to import matplotlib around every update of every visitor, to set its backend. Where there is none,
    Python looks through every folder each time, twice: an eighth of a busy server's time. With None in its place the
    import fails at once.
    """
    if util.find_spec("matplotlib") is None:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]


def keep_visits_small() -> None:
    """Gradio gives each visit a copy of every component's configuration, and keeps there all that is sent through them.

    Only `gr.DeepLinkButton` reads that copy, which we do not have; making it takes the server's loop 15 ms for each new
    visitor of a page with some hundred components, so that sixteen who come at once would wait for each other.
    """
    state_holder.SessionState = _Visit


class _Visit(state_holder.SessionState):  # type: ignore[misc]
    """Has what Gradio needs to answer a visit, and no more."""

    def __init__(self, blocks: Any) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def reach_itself_directly() -> None:
    """Gradio asks the page whether it is up before `launch` returns, through the proxy that the environment names: one
    to the outside has no answer, and `launch` would fail."""
    for name in ("NO_PROXY", "no_proxy"):
        there = list(filter(None, os.environ.get(name, "").split(",")))
        os.environ[name] = ",".join([*there, *(own for own in ("localhost", "127.0.0.1", "::1") if own not in there)])


def fetch_nothing() -> None:
    """Gradio fetches every public address that it finds in what it is sent, however large the answer is, before any
    handler sees it; and passes on what is at an address that stands behind `file=`, as if it were this page's own."""
    processing_utils.async_ssrf_protected_get = routes.secure_url_stream_response = _refuse


async def _refuse(*_: object) -> NoReturn:
    raise ValueError("nothing is fetched here")


def shorten_names() -> None:
    """Gradio keeps the name that a visit gives itself, of any length, for as long as it remembers the visit."""
    for body in (data_classes.SimplePredictBody, data_classes.SimplePredictBodyV2, data_classes.PredictBody):
        field = body.model_fields["session_hash"]
        if not field.metadata:
            field.metadata.append(MaxLen(_NAME_CHARACTERS))
            body.model_rebuild(force=True)


def forget_visits(page: Any) -> None:
    """Gradio remembers for ever who has asked something of the built `page` and never listened to the answer; from now
    on as many as it keeps answers for."""
    page._queue.pending_event_ids_session = LRUCache(page._queue.pending_messages_per_session.max_size)


def shorten_complaints() -> None:
    """Gradio prints a traceback of everything that it could not do with what it was sent, as often as a stranger likes,
    and some have in them what was sent. Ours is one line of the log: what kind of error it was and where, and not what
    it says."""
    queueing.traceback = routes.traceback = _Complaints


class _Complaints:
    """In place of the module that prints tracebacks."""

    @staticmethod
    def print_exc() -> None:
        kind, _, where = sys.exc_info()
        if kind is not None:
            place = extract_tb(where)[-1]
            LOG.info(
                "the page could not be asked so: %s in %s:%s", kind.__name__, Path(place.filename).name, place.lineno
            )


def delete_what_was_cut_off(page: Any, folder: Path, kept_seconds: float) -> None:
    """Gradio deletes uploads that are older than `delete_cache` says, those whose names it was told when they were
    whole. The part of one that was cut off would stay in its upload `folder` for ever: it goes with them."""
    page.temp_file_sets.append(_CutOff(folder, kept_seconds))


class _CutOff(set[str]):
    """What was cut off and has not been written to for so long, whenever it is looked through."""

    def __init__(self, folder: Path, kept_seconds: float) -> None:
        super().__init__()
        self._folder, self._kept_seconds = folder, kept_seconds

    def __iter__(self) -> Iterator[str]:
        for path in self._folder.glob("tmp*"):
            with suppress(OSError):  # it has just become whole, and is elsewhere
                if path.is_file() and path.stat().st_mtime < time.time() - self._kept_seconds:
                    yield str(path)


def look_less_often(page: Any) -> None:
    """Gradio looks whether somebody has asked something of the built `page` a thousand times a second, which takes 4 %
    of a core from the model, and stops its threads each time. A hundred times are soon enough."""
    page._queue.sleep_when_free = _LOOK_SECONDS


@contextmanager
def printing_to_log() -> Iterator[None]:
    """`launch` prints where the MCP server and a public link are, `quiet` or not; our own output is the page's address,
    and nothing before it. What is printed in the block goes into the log."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        for line in filter(None, map(str.strip, said.getvalue().splitlines())):
            LOG.info("gradio: %s", line)


def offer_over_mcp(page: Any, prefix: str) -> None:
    """Gradio's MCP server offers every public endpoint of a launched `page`, and no other. From now on it offers those
    whose names begin with `prefix`, public or not, under the rest of their names, and nothing else."""
    server = page.mcp_server_obj
    server.api_info = page.get_api_info(all_endpoints=True)
    names = [name for name in server.api_info["named_endpoints"] if name.startswith("/" + prefix)]
    server.tool_to_endpoint = {name.removeprefix("/" + prefix): name for name in names}

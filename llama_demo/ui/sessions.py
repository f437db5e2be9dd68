"""What the page's server keeps of a visit: what Gradio needs to answer it, and no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gradio import state_holder


def keep_sessions_small() -> None:
    """Has Gradio make each visit's state as ours."""
    state_holder.SessionState = _Session


class _Session(state_holder.SessionState):  # type: ignore[misc]
    """A visit without Gradio's copy of every component's configuration and of all that was ever sent through them.

    Only `gr.DeepLinkButton` reads that copy, which we do not have; making it takes the server's loop 15 ms for each new
    visitor of a page with some hundred components, so that sixteen who come at once would wait for each other.
    """

    def __init__(self, blocks: Any) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass

"""What tests of strangers have in common: a public app over real sockets, as `serve` starts it, and its protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route

from llama_demo import ui
from llama_demo.runtime import Runtime
from llama_demo.serve import launch
from llama_demo.settings import read_settings
from tests.ports import free_port

PASSWORD = "correct horse battery"
TOKEN = "hf_0123456789abcdefghijklmnopqrstuvwx"
SECRETS = (PASSWORD, TOKEN)


@dataclass(frozen=True)
class PublicApp:
    """Its parts, and where it is."""

    runtime: Runtime
    page: Any
    address: str

    def server_functions(self) -> list[tuple[int, str]]:
        """Those that parts of the page call: the part's number and the function's name."""
        config = httpx.get(f"{self.address}/config").json()
        return [(part["id"], name) for part in config["components"] for name in part["props"].get("server_fns") or ()]

    def events(self) -> list[tuple[int, str, int]]:
        """Every event of the page that has a handler: its number, its name in the API and how many values it takes."""
        config = httpx.get(f"{self.address}/config").json()
        return [
            (event["id"], str(event["api_name"]), len(event["inputs"]))
            for event in config["dependencies"]
            if event["backend_fn"]
        ]

    def routes(self) -> list[tuple[str, set[str]]]:
        """The path of each route there is, with the names of its parameters in braces, and its methods."""
        return list(_every_route(self.page.app.routes))


def _every_route(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, set[str]]]:
    for route in routes:
        included = getattr(route, "original_router", None)  # FastAPI's newest keeps a router as it was included
        if included is not None:
            yield from _every_route(included.routes, before)
        elif isinstance(route, Mount):
            yield from _every_route(list(route.routes), before + route.path)
        elif isinstance(route, Route):
            yield before + route.path, route.methods or set()


@contextmanager
def public_app(cache: Path, **settings: str) -> Iterator[PublicApp]:
    """A public server with an owner's password and the Hub's token; no model is loaded before it is asked for."""
    port = free_port()
    given = {"port": str(port), "public": "on", "cache_dir": str(cache), **settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        with Runtime(read_settings(given, {"LLAMA_DEMO_OWNER_PASSWORD": PASSWORD, "HF_TOKEN": TOKEN})) as runtime:
            page = ui.build(runtime)
            launch(page, runtime)
            yield PublicApp(runtime, page, f"http://127.0.0.1:{port}")
            page.close(verbose=False)


def ask(client: httpx.Client, event: int, data: list[Any]) -> str:
    """Everything that the page's protocol says to one event."""
    session = f"s{event}x{time.monotonic_ns()}"
    joined = client.post("/gradio_api/queue/join", json={"data": data, "fn_index": event, "session_hash": session})
    if joined.status_code != 200:
        assert joined.status_code < 500, joined.text
        return joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as heard:
        said = []
        for line in heard.iter_lines():
            said.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
        return "\n".join(said)


def call(client: httpx.Client, part: int, function: str, asked: Any) -> httpx.Response:
    """What a part of the page hears of its server function."""
    body = {"component_id": part, "fn_name": function, "session_hash": "s", "data": asked}
    return client.post("/gradio_api/component_server", json=body)


def unsaid(text: str) -> str:
    """`text`, which holds no secret, whole or as JSON has it."""
    for secret in SECRETS:
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
    return text

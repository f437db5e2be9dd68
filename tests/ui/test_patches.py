"""Each patch of Gradio: that it reaches what it changes, and that Gradio by itself still does what is changed. Where
the second fails the patch may go."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio import analytics, networking, processing_utils, queueing, route_utils, routes, utils
from gradio_client import Client

from llama_demo import ui
from llama_demo.ui import files, patches
from tests.ui.scripted import scripted

GRADIO = Path(gr.__file__).parent
STATISTICS = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_ANALYTICS_CACHE_FREQUENCY", "GRADIO_ANALYTICS_MAX_EVENTS")


def hidden() -> str:
    return "hidden"


def public() -> str:
    return "public"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of a scripted runtime, as it is served, with a folder of its own for uploads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        made = ui.build(scripted())
        made.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **ui.launch_options(scripted()))
        yield made
        made.close(verbose=False)


@pytest.fixture
def plain() -> Iterator[Any]:
    """A page of Gradio's with two endpoints, not launched."""
    with gr.Blocks(analytics_enabled=False) as made:
        gr.api(public, api_name="public")
        gr.api(hidden, api_name="tool_hidden", api_visibility="undocumented")
    yield made
    made.close(verbose=False)


def launch(page: Any) -> None:
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, mcp_server=True)


def summary() -> Any:
    """What the queue of a page that is made now sums up of one past event."""
    queue = gr.Blocks(analytics_enabled=False)._queue
    queue.events_recorded = 1
    return queue.compute_analytics_summary([{"function": "chat", "status": "success", "process_time": 0.5}])


def test_no_statistics_are_kept_and_none_are_sent(monkeypatch: pytest.MonkeyPatch, page: Any) -> None:
    client = Client(page.local_url, verbose=False)
    for _ in range(3):
        client.predict("hi", api_name="/chat")
    assert len(page._queue.event_analytics) == 1
    assert page._queue.cached_event_analytics_summary == {"functions": {}}
    for name in STATISTICS:
        monkeypatch.delenv(name)
    assert analytics.analytics_enabled()
    assert "chat" in summary()["functions"]
    patches.keep_no_statistics()
    assert not analytics.analytics_enabled()
    assert not summary()["functions"]


def test_no_update_looks_through_folders_for_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if util.find_spec("matplotlib") is not None:
        pytest.skip("matplotlib is installed")
    looked: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            looked.append(name)

    monkeypatch.setitem(sys.modules, "matplotlib", sys)  # so that it is as before afterwards
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with utils.MatplotlibBackendMananger():
        assert looked == ["matplotlib"]
    patches.skip_matplotlib()
    looked.clear()
    with utils.MatplotlibBackendMananger():
        assert looked == []


def test_a_visit_keeps_no_copy_of_the_page_and_of_what_was_sent_through_it(page: Any) -> None:
    client = Client(page.local_url, verbose=False)
    assert client.predict("hi", api_name="/chat") == "You said: hi"
    visit = page.state_holder[client.session_hash]
    assert visit.config_values == {}
    gradios_own = type(visit).__bases__[0]
    assert len(gradios_own(page).config_values) > len(page.blocks) / 2


def test_only_deep_links_read_the_copy() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in GRADIO.glob("*.py")}
    assert [name for name, text in sources.items() if "config_values" in text] == ["state_holder.py"]
    readers = [
        text[: found.start()].rpartition("def ")[2].partition("(")[0]
        for text in sources.values()
        for found in re.finditer(r"(state_holder\[[^]]*\]|session_state)\.components\b", text)
    ]
    assert readers == ["deep_link"]


def test_the_page_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch, page: Any) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "example.com")
    assert not networking.url_ok(page.local_url)
    patches.reach_itself_directly()
    assert networking.url_ok(page.local_url)


def test_gradio_would_fetch_what_is_patched_away_by_the_names_that_are_patched() -> None:
    patches.fetch_nothing()
    assert "async_ssrf_protected_get(" in inspect.getsource(processing_utils.async_ssrf_protected_download)
    assert "secure_url_stream_response(" in inspect.getsource(routes.App.create_app)
    with pytest.raises(ValueError, match="nothing is fetched"):
        asyncio.run(processing_utils.async_ssrf_protected_download("http://example.com/x", "/nowhere"))


def test_a_visit_s_name_is_short_and_is_forgotten_with_its_answers(page: Any, plain: Any) -> None:
    body = {"fn_index": 0, "data": []}
    for path in ("queue/join", "run/predict", "call/models"):
        for length, refused in ((64, False), (65, True)):
            asked = httpx.post(f"{page.local_url}gradio_api/{path}", json={**body, "session_hash": "s" * length})
            assert (asked.status_code == 422) is refused, path
    assert type(plain._queue.pending_event_ids_session) is dict
    kept = page._queue.pending_event_ids_session
    for number in range(kept.max_size + 1):
        kept[str(number)] = set()
    assert len(kept) == kept.max_size


def test_the_server_looks_for_requests_less_often_than_gradio_would(page: Any, plain: Any) -> None:
    assert page._queue.sleep_when_free > plain._queue.sleep_when_free > 0
    assert "await asyncio.sleep(self.sleep_when_free)" in (GRADIO / "queueing.py").read_text(encoding="utf-8")


def test_what_a_launch_prints_goes_into_the_log(
    plain: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    launch(plain)
    printed = capsys.readouterr().out
    assert "MCP" in printed
    plain.close(verbose=False)
    with caplog.at_level(logging.INFO), patches.printing_to_log():
        launch(plain)
    assert capsys.readouterr().out == ""
    assert "gradio: * Streamable HTTP URL" in caplog.text


def test_the_mcp_server_offers_what_has_the_prefix_and_nothing_else(plain: Any) -> None:
    launch(plain)
    assert plain.mcp_server_obj.tool_to_endpoint == {"public": "/public"}
    patches.offer_over_mcp(plain, "tool_")
    assert plain.mcp_server_obj.tool_to_endpoint == {"hidden": "/tool_hidden"}
    assert "/tool_hidden" in plain.mcp_server_obj.api_info["named_endpoints"]


def test_what_gradio_cannot_do_is_one_line_of_the_log_without_what_was_sent(
    page: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_demo.observe.LOG.propagate", True)
    event = next(number for number, one in page.fns.items() if getattr(one.fn, "__name__", "") == "choose")

    def send_nonsense(session: str) -> str:
        """At both doors that Gradio has for events."""
        body = {"data": [["a secret"]], "fn_index": event, "session_hash": session}
        httpx.post(f"{page.local_url}gradio_api/run/predict", json=body)
        httpx.post(f"{page.local_url}gradio_api/queue/join", json=body).raise_for_status()
        httpx.get(f"{page.local_url}gradio_api/queue/data", params={"session_hash": session})
        return "".join(capfd.readouterr())

    with caplog.at_level("INFO", logger="llama_demo"):
        assert send_nonsense("a") == ""
    lines = [line for line in caplog.messages if line.startswith("the page could not be asked so")]
    assert len(lines) == 2
    assert "secret" not in caplog.text
    for module in (queueing, routes):
        monkeypatch.setattr(module, "traceback", traceback)
    assert send_nonsense("b").count("Traceback") == 2


def test_the_part_of_an_upload_that_was_cut_off_is_deleted_after_its_time(page: Any, plain: Any) -> None:
    folder = Path(utils.get_upload_folder())
    before = set(folder.glob("tmp*"))
    host, port = page.local_url.removeprefix("http://").strip("/").split(":")
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n"
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nthe first part'
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{form}".encode())
        while not (cut_off := set(folder.glob("tmp*")) - before):
            time.sleep(0.01)
    (part,) = cut_off
    route_utils.delete_files_created_by_app(page, age=0)
    assert part.exists()
    os.utime(part, (0, time.time() - files.KEPT_SECONDS - 1))
    route_utils.delete_files_created_by_app(plain, age=0)
    assert part.exists()
    route_utils.delete_files_created_by_app(page, age=0)
    assert not part.exists()

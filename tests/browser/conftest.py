"""The real app and a real Chromium. The browser is Playwright's own where it was downloaded, else the system's.

Two ways to run the app: as a process of its own (`served`), and inside the test's process (`inside`), where a test can
watch the engine's own count of steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from llama_demo.engines.stream import TokenStream
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from tests.browser.chat_page import ChatPage
from tests.ports import free_port

SYSTEM_BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
START_SECONDS = 120
UNREACHABLE = ("net::ERR_", "network error", "Connection errored out", "Failed to fetch")
REFUSED = ("status of 403",)


def browser_path(playwright: Playwright) -> str | None:
    """The Chromium to use; None where there is none."""
    candidates = (playwright.chromium.executable_path, *SYSTEM_BROWSERS)
    return next((path for path in candidates if Path(path).is_file()), None)


# Playwright's synchronous interface keeps an event loop running in this thread: it must end before the next folder's
# tests start loops of their own, hence fixtures for this package and not for the session.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = browser_path(playwright)
        if path is None:
            pytest.skip("no Chromium: run `python -m playwright install chromium`, or install your system's chromium")
        launched = playwright.chromium.launch(executable_path=path, args=[*QUIET, "--disable-sync"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def cache_folder(embedded_gguf: Path) -> Iterator[Path]:
    """Where the embedded model is converted to, once for all the browser's tests."""
    with tempfile.TemporaryDirectory(prefix="llama-demo-browser-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Served:
    """The app as a process of its own, which can be stopped and started again on the same port."""

    def __init__(self, cache_folder: Path, *flags: str, **variables: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "llama_demo", "serve", "--port", str(self.port), *flags]
        own = {"LLAMA_DEMO_CACHE_DIR": str(cache_folder), "HOME": str(cache_folder)}
        self._environment = {**os.environ, **own, **variables}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns once the page is up."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        killer = threading.Timer(START_SECONDS, self._process.kill)
        killer.start()
        said = next((line for line in self._process.stdout if f"page is at {self.address}" in line), "")
        killer.cancel()
        assert said, "the app did not start"

    def stop(self, *, hard: bool = False) -> None:
        """Ends the process: in order, or as a power cut would."""
        if self._process is not None:
            (self._process.kill if hard else self._process.terminate)()
            self._process.communicate(timeout=60)
            self._process = None


@pytest.fixture(scope="package")
def served(cache_folder: Path) -> Iterator[Served]:
    app = Served(cache_folder)
    app.start()
    yield app
    app.stop()


class Inside:
    """The app in this process, with every stream of its engine in sight."""

    def __init__(self, runtime: Runtime, address: str) -> None:
        self.runtime = runtime
        self.address = address
        self.streams: list[TokenStream] = []
        with runtime.registry.lease(runtime.default_model) as loaded:
            engine: Any = loaded.engine
        generate = engine.generate

        def watched(ids: Any, sampling: Any) -> TokenStream:
            stream: TokenStream = generate(ids, sampling)
            self.streams.append(stream)
            return stream

        engine.generate = watched


@pytest.fixture(scope="package")
def inside(cache_folder: Path) -> Iterator[Inside]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from llama_demo import ui

    # Exact arithmetic: in the fast profile a prompt that is asked again reads its kept, rounded beginning.
    with Runtime(Settings(cache_dir=cache_folder, idle_minutes=0, reproducible=True)) as runtime:
        page = ui.build(runtime)
        page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, **ui.launch_options(runtime))
        try:
            yield Inside(runtime, page.local_url.rstrip("/"))
        finally:
            page.close(verbose=False)


@contextmanager
def watched_context(
    browser: Browser, *, server_stops: bool = False, refused: bool = False, **options: Any
) -> Iterator[BrowserContext]:
    """A fresh browser profile. Fails on any error in the console, and on any request that leaves this machine.

    Where the server stops, or refuses, on purpose the browser itself complains of that; nothing else may.
    """
    context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 800}), **options)
    complaints: list[str] = []

    def watch(page: Page) -> None:
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))

    context.on("page", watch)
    context.on("request", lambda request: complaints.append(request.url) if leaves(request.url) else None)
    try:
        yield context
    finally:
        context.close()
    expected = (*(UNREACHABLE if server_stops else ()), *(REFUSED if refused else ()))
    complaints = [line for line in complaints if not any(words in line for words in expected)]
    assert not complaints, complaints


def leaves(address: str) -> bool:
    """Whether a request for `address` would leave this machine."""
    return not address.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with watched_context(browser) as context:
        yield context


@pytest.fixture
def phone(browser: Browser) -> Iterator[BrowserContext]:
    with watched_context(browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as context:
        yield context


@pytest.fixture
def chat(context: BrowserContext, served: Served) -> ChatPage:
    """The served app's chat, in a fresh profile."""
    return ChatPage(context.new_page(), served.address)


@pytest.fixture
def watched_chat(context: BrowserContext, inside: Inside) -> ChatPage:
    """The chat of the app whose engine is in sight."""
    return ChatPage(context.new_page(), inside.address)

"""How the page comes to a visitor, in a real Chromium: `python -m benchmarks.first_paint`.

Each visit is one of a profile that has never been here, and one of the same profile again. The first paint, the first
paint with anything on it, when a message can be written and sent, when the page speaks the browser's language, and what
came over the wire. Needs Playwright (requirements-dev.txt) and a Chromium: Playwright's own, or the system's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, sync_playwright

from benchmarks.results import Finding
from benchmarks.servers import HOST, end_in_order, free_port, started

ROOT = Path(__file__).parent.parent
SYSTEM_BROWSER = Path("/usr/bin/chromium")
LOCALES = ("en-US", "ko-KR")
USABLE = """() => window.llamaDemo && document.querySelector("#conversation-list li")
  && document.querySelector("#message textarea:not([disabled])") && performance.now()"""
WORDED = "(language) => document.documentElement.lang === language && performance.now()"
PAINTS = (
    """() => Object.fromEntries(performance.getEntriesByType("paint").map((paint) => [paint.name, paint.startTime]))"""
)
COLUMNS = ("first paint", "first content", "usable", "in its language", "requests", "MB sent")


@dataclass(frozen=True, slots=True)
class Visit:
    """Seconds since the address was asked for, and what the server sent, as it went over the wire."""

    first_paint: float
    first_content: float
    usable: float
    worded: float
    requests: float
    megabytes: float


def visit(context: BrowserContext, url: str, language: str) -> Visit:
    """One opening of the page in a tab of its own."""
    page = context.new_page()
    wire = context.new_cdp_session(page)
    sent: list[int] = []
    wire.on("Network.loadingFinished", lambda event: sent.append(int(event["encodedDataLength"])))
    wire.send("Network.enable")
    page.goto(url, wait_until="commit")
    usable = page.wait_for_function(USABLE, polling="raf").json_value()
    worded = page.wait_for_function(WORDED, arg=language, polling="raf").json_value()
    page.wait_for_load_state("networkidle")
    paints = page.evaluate(PAINTS)
    page.close()
    return Visit(
        paints["first-paint"] / 1000,
        paints["first-contentful-paint"] / 1000,
        usable / 1000,
        worded / 1000,
        len(sent),
        sum(sent) / 1e6,
    )


def visits(browser: Browser, url: str, locale: str, repeats: int) -> tuple[list[Visit], list[Visit]]:
    """Of new profiles, and of the same once more."""
    new, again = [], []
    for _ in range(repeats):
        with browser.new_context(locale=locale) as context:
            new.append(visit(context, url, locale[:2]))
            again.append(visit(context, url, locale[:2]))
    return new, again


def row(name: str, measured: Sequence[Visit]) -> str:
    """The medians."""
    medians = [statistics.median(column) for column in zip(*map(astuple, measured), strict=True)]
    return f"{name:<22}" + "".join(f"{value:>16.2f}" for value in medians)


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    port = free_port()
    url = f"http://{HOST}:{port}"
    findings = []
    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        command: list[str | Path] = [sys.executable, ROOT / "app.py", "--port", str(port), "--cache-dir", cache]
        own = Path(playwright.chromium.executable_path)
        path = own if own.is_file() else SYSTEM_BROWSER
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        # Until the model is in memory it has both cores.
        with started(command, ready_url=f"{url}/health", environment=environment, folder=ROOT):
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            print(f"{'medians, s':<22}" + "".join(f"{column:>16}" for column in COLUMNS))
            for locale in LOCALES:
                new, again = visits(browser, url, locale, repeats)
                print(row(f"{locale}, new profile", new), row(f"{locale}, once more", again), sep="\n")
                slowest = max(each.usable for each in new)
                findings.append(Finding(f"{locale}: usable, s, slowest of {repeats}", slowest, at_most=3))
            browser.close()
    print(*(finding.line() for finding in findings), sep="\n")
    return 1 if any(finding.met is False for finding in findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Takes the README's pictures from the running app: `python docs/screenshots.py [ADDRESS]`.

It needs Playwright (requirements-dev.txt) and a Chromium: Playwright's own, or the system's.
"""

from __future__ import annotations

import base64
import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).resolve().parent / "images"
SYSTEM_BROWSER = Path("/usr/bin/chromium")
QUESTIONS = (
    "Explain why the sky is blue, in two sentences.",
    "What is the capital of South Korea?",
)
STORY = "The old lighthouse keeper climbed the stairs every evening, because"
OPENINGS = ("The old lighthouse", "A recipe for bread begins with", "Dear neighbours,", "On Mars the first")
SAMPLE = Path(__file__).resolve().parent.parent / "llama_demo" / "ui" / "sample_examples.tsv"
REPLY_MILLISECONDS = 120_000
MOVING_SIZE = (960, 600)
FRAME_SECONDS = 0.08
LINGER_MILLISECONDS = 1600


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        path = own if own.is_file() else SYSTEM_BROWSER
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        moving_picture(browser, address, "moving")
        picture(browser, address, "chat-light", (1280, 800))
        picture(browser, address, "chat-dark", (1280, 800), dark=True)
        picture(browser, address, "chat-phone", (390, 844))
        text_pictures(browser, address, {"text": "text-text", "tokens": "text-tokens"}, (1280, 800))
        text_pictures(browser, address, {"compare": "text-compare-dark"}, (1280, 800), dark=True)
        text_pictures(browser, address, {"tokens": "text-tokens-phone"}, (390, 844))
        text_file_picture(browser, address, "text-files", (1280, 960))
        models_picture(browser, address, "models", (1280, 800))
        models_picture(browser, address, "models-dark", (1280, 800), dark=True)
        models_picture(browser, address, "models-phone", (390, 844))
        models_picture(browser, address, "models-sheet", (1280, 1000), sheet="smollm2-135m-instruct")
        classify_picture(browser, address, "classify", (1280, 800))
        classify_picture(browser, address, "classify-phone", (390, 844))
        classify_file_picture(browser, address, "classify-files", (1280, 1100))
        training_picture(browser, address, "classify-train-dark", (1280, 900), dark=True)
        browser.close()


def opened(browser: Browser, address: str, size: tuple[int, int], *, dark: bool) -> Page:
    """The app in a fresh profile."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("window.llamaDemo && document.querySelector('#message textarea')")
    return page


def picture(browser: Browser, address: str, name: str, size: tuple[int, int], *, dark: bool = False) -> None:
    """One PNG of a short conversation, greedy, so that every run shows the same."""
    page = opened(browser, address, size, dark=dark)
    set_number(page, "#temperature", 0)
    for question in QUESTIONS:
        page.fill("#message textarea", question)
        page.press("#message textarea", "Enter")
        page.wait_for_selector("body.chat-busy")
        page.wait_for_selector("body:not(.chat-busy)", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(1000)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


def moving_picture(browser: Browser, address: str, name: str) -> None:
    """A reply streams in, its tokens are looked at, another is chosen, and the text goes on from there."""
    page = opened(browser, address, MOVING_SIZE, dark=False)
    set_number(page, "#temperature", 0)
    set_number(page, "#max-new-tokens", 60)
    frames: list[tuple[float, bytes]] = []
    wire = page.context.new_cdp_session(page)

    def taken(event: dict[str, Any]) -> None:
        frames.append((event["metadata"]["timestamp"], base64.b64decode(event["data"])))
        wire.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    wire.on("Page.screencastFrame", taken)
    wire.send("Page.startScreencast", {"format": "jpeg", "quality": 95})
    page.locator("#message textarea").press_sequentially(QUESTIONS[0], delay=30)
    page.press("#message textarea", "Enter")
    page.wait_for_selector("body.chat-busy")
    page.wait_for_selector("body:not(.chat-busy)", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(LINGER_MILLISECONDS)
    page.click("#chat-tokens")
    page.wait_for_selector("#tokens .new", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(LINGER_MILLISECONDS)
    page.locator("#tokens .new").nth(8).click()
    page.wait_for_timeout(LINGER_MILLISECONDS)
    page.locator("#token-alternatives button:not(.own)").first.click()
    page.wait_for_selector("body.text-busy")
    page.wait_for_selector("body:not(.text-busy)", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(LINGER_MILLISECONDS)
    page.context.close()
    save_moving(frames, FOLDER / f"{name}.webp")


def save_moving(frames: list[tuple[float, bytes]], path: Path) -> None:
    """`frames` with the seconds when each was drawn, as an animation that goes as fast as the page did."""
    kept = [frames[0]]
    for frame in frames[1:]:
        if frame[0] - kept[-1][0] >= FRAME_SECONDS:
            kept.append(frame)
    kept.append(frames[-1])
    times = [drawn for drawn, _ in kept]
    first, *rest = [Image.open(io.BytesIO(data)) for _, data in kept]
    lasting = [round((after - before) * 1000) for before, after in pairwise(times)] + [LINGER_MILLISECONDS * 2]
    first.save(path, save_all=True, append_images=rest, duration=lasting, loop=0, quality=60, method=4)


def set_number(page: Page, control: str, value: float) -> None:
    page.locator(f"{control} input[type=number]").evaluate(
        "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', { bubbles: true })) }", value
    )


def text_pictures(
    browser: Browser, address: str, names: dict[str, str], size: tuple[int, int], *, dark: bool = False
) -> None:
    """The text tab's views of one story, with a seed, so that every run shows much the same; `names` by view."""
    page = opened(browser, address, size, dark=dark)
    page.click("#text-tab-button")
    page.wait_for_selector("body.text-ready")
    for control, value in (("seed", 11), ("max-new-tokens", 72), ("temperature", 0.7)):
        set_number(page, f"#text-{control}", value)
    page.fill("#text-box", STORY)
    for view in ("text", "tokens", "compare"):
        page.click(f"#text-views [data-view={view}]")
        if view == "tokens":
            page.wait_for_selector("#tokens [data-index]", timeout=REPLY_MILLISECONDS)
            page.locator("#tokens .new").nth(1).click()
        else:
            page.click("#text-go")
            page.wait_for_selector("body.text-busy")
        page.wait_for_selector("body:not(.text-busy)", timeout=REPLY_MILLISECONDS)
        page.wait_for_timeout(500)
        if view in names:
            page.screenshot(path=FOLDER / f"{names[view]}.png")
    page.context.close()


def text_file_picture(browser: Browser, address: str, name: str, size: tuple[int, int]) -> None:
    """The text tab's Files view once it has gone on with a few beginnings, greedily."""
    page = opened(browser, address, size, dark=False)
    page.click("#text-tab-button")
    page.wait_for_selector("body.text-ready")
    for control, value in (("max-new-tokens", 16), ("temperature", 0)):
        page.locator(f"#text-{control} input[type=number]").evaluate(
            "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', { bubbles: true })) }",
            value,
        )
    page.click("#text-views [data-view=files]")
    table = "prompt\n" + "".join(f'"{opening}"\n' for opening in OPENINGS)
    work_through(page, "text", "beginnings.csv", table)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


def work_through(page: Page, section: str, name: str, table: str) -> None:
    """Gives `table` to the Files section of that name, and waits until every row is done."""
    file = {"name": name, "mimeType": "text/csv", "buffer": table.encode()}
    page.set_input_files(f"#{section}-file-source input[type=file]", file)
    page.click(f"#{section}-file-run:enabled")
    page.wait_for_selector(f"#{section}-file-result", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(500)


def models_picture(
    browser: Browser, address: str, name: str, size: tuple[int, int], *, dark: bool = False, sheet: str = ""
) -> None:
    """The Models tab, or the sheet of the model `sheet` in it."""
    page = opened(browser, address, size, dark=dark)
    page.click("#models-tab-button")
    page.wait_for_selector(".model-card[data-state=ready]", timeout=REPLY_MILLISECONDS)
    if sheet:
        page.click(f"[data-key='{sheet}'] [data-do=sheet]")
        page.wait_for_selector("#sheet-pieces .piece", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(500)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


def classification(browser: Browser, address: str, size: tuple[int, int], *, dark: bool = False) -> Page:
    """The classification tab in a fresh profile."""
    page = opened(browser, address, size, dark=dark)
    page.click("#classify-tab-button")
    page.wait_for_selector("body.classify-ready")
    return page


def classify_picture(browser: Browser, address: str, name: str, size: tuple[int, int]) -> None:
    """The worked example of one review, with the words that moved the decision."""
    page = classification(browser, address, size)
    page.get_by_role("button", name="Example: a review").click()
    page.wait_for_selector("#classify-found .explained", timeout=REPLY_MILLISECONDS)
    page.locator("#classify-found .legend").scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


def classify_file_picture(browser: Browser, address: str, name: str, size: tuple[int, int]) -> None:
    """The report on the sample's rows, read with its labels and no training."""
    page = classification(browser, address, size)
    page.fill("#labels textarea", "praise\ncomplaint\nquestion")
    page.click("#classify-files-button")
    page.wait_for_selector("#classify-files-about .note")
    rows = [line.split("\t") for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    table = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)
    work_through(page, "classify", "messages.csv", table)
    page.locator("#classify-file-report .figures").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


def training_picture(browser: Browser, address: str, name: str, size: tuple[int, int], *, dark: bool = False) -> None:
    """The report of a head trained on the sample, which must not be there yet."""
    page = classification(browser, address, size, dark=dark)
    page.click("#classify-train-button")
    page.click("#train-sample")
    page.wait_for_selector("#train-preview .bars")
    page.click("#train-go")
    page.wait_for_selector("#train-found .figures", timeout=REPLY_MILLISECONDS)
    page.wait_for_timeout(1500)
    page.screenshot(path=FOLDER / f"{name}.png")
    page.context.close()


if __name__ == "__main__":
    main()

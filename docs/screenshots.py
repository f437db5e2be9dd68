"""Takes the README's pictures from the running app: `python docs/screenshots.py [ADDRESS]`.

It needs Playwright (requirements-dev.txt) and a Chromium: Playwright's own, or the system's.
"""

from __future__ import annotations

import io
import sys
import time
from itertools import pairwise
from pathlib import Path

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
FRAME_SECONDS = 0.12
LINGER_SECONDS = 1.6


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
    frames: list[tuple[float, bytes]] = []

    def watch(until: str, seconds: float = 0.0) -> None:
        """Takes frames until the page says so, and for some seconds after that."""
        end = None
        while end is None or time.monotonic() < end:
            frames.append((time.monotonic(), page.screenshot()))
            page.wait_for_timeout(FRAME_SECONDS * 1000)
            if end is None and page.evaluate(until):
                end = time.monotonic() + seconds

    set_number(page, "#seed", 3)
    page.locator("#message textarea").press_sequentially(QUESTIONS[1])
    watch("true", 0.5)
    page.press("#message textarea", "Enter")
    page.wait_for_selector("body.chat-busy")
    watch("!document.body.classList.contains('chat-busy')", LINGER_SECONDS)
    page.click("#chat-tokens")
    watch("document.querySelectorAll('#tokens .new').length > 0 && !document.body.classList.contains('text-busy')", 1)
    page.locator("#tokens .new").nth(2).click()
    watch("document.querySelector('#token-alternatives') !== null", LINGER_SECONDS)
    page.locator("#token-alternatives button:not(.own)").first.click()
    page.wait_for_selector("body.text-busy")
    watch("!document.body.classList.contains('text-busy')", 2 * LINGER_SECONDS)
    page.context.close()
    times = [taken for taken, _ in frames]
    pictures = [Image.open(io.BytesIO(taken)).convert("RGB") for _, taken in frames]
    lasting = [round((after - before) * 1000) for before, after in pairwise([*times, times[-1] + LINGER_SECONDS])]
    first, *rest = pictures
    path = FOLDER / f"{name}.webp"
    first.save(path, save_all=True, append_images=rest, duration=lasting, loop=0, quality=70, method=4)


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

"""What a visitor does on the classification tab, in their words."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, expect

from tests.browser.tab_page import TabPage

SECONDS = 180_000


class ClassifyPage(TabPage):
    def turn(self) -> None:
        self.page.click("#classify-tab-button")
        self.page.wait_for_selector("body.classify-ready")

    def view(self, name: str) -> None:
        """Turns to use, files, train or kept."""
        self.page.click(f"#classify-{name}-button")

    def example(self, label: str) -> None:
        """Begins it: the text is filled in first, so nothing says at once that it is under way."""
        self.page.get_by_role("button", name=label).click()

    def classify(self, text: str, classifier: str = "") -> dict[str, str]:
        """The bars of one text."""
        self.view("use")
        if classifier:
            self._choose("#classifier", classifier)
        self.page.fill("#classify-text textarea", text)
        self.page.click("#classify-go")
        self._wait("use")
        return self.bars()

    def bars(self) -> dict[str, str]:
        """What stands beside each label of the last text."""
        rows = self.page.locator("#classify-found .bars li").all()
        return {row.locator(".bar-name").inner_text(): row.locator(".bar-value").inner_text() for row in rows}

    def train(self, pasted: str, name: str) -> Locator:
        """The report, or why there is none."""
        self.view("train")
        self.page.fill("#train-pasted textarea", pasted)
        expect(self.page.locator("#train-preview .bars")).to_be_visible()
        self.page.fill("#train-name textarea, #train-name input", name)
        self.page.click("#train-go")
        self._wait("train")
        return self.page.locator("#train-found")

    def download(self, name: str, folder: Path) -> Path:
        self.choose_kept(name)
        expect(self.page.locator("#kept-about .figures")).to_be_visible()
        with self.page.expect_download() as downloading:
            self.page.click("#kept-download")
        path = folder / downloading.value.suggested_filename
        downloading.value.save_as(path)
        return path

    def choose_kept(self, name: str) -> None:
        self.view("kept")
        self._choose("#kept-chosen", name)

    def upload(self, path: Path, name: str = "") -> Locator:
        """What is said of it."""
        self.view("kept")
        self.page.fill("#kept-name textarea, #kept-name input", name)
        with self.page.expect_file_chooser() as choosing:
            self.page.click("#kept-upload")
        choosing.value.set_files(path)
        return self.page.locator("#kept-said")

    def _choose(self, dropdown: str, name: str) -> None:
        self.page.click(f"{dropdown} input")
        self.page.get_by_role("option", name=name, exact=True).click()

    def _wait(self, kind: str) -> None:
        self.page.wait_for_selector(f"body:not(.classify-{kind}-busy)", timeout=SECONDS)

"""The documents' tables are made from the code, and so cannot drift: `python -m tests.test_readme` writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from llama_demo.catalog import EMBEDDED, Entry, packaged
from llama_demo.entry_files import is_converted, read_model
from llama_demo.fitting import least
from llama_demo.placement import FAST_CACHE_BYTES, Form, cpu_form, gpu_form
from llama_demo.settings import options

ROOT = Path(__file__).resolve().parent.parent
README, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
PAGES = (README, KOREAN, *sorted((ROOT / "docs").glob("*.md")))
CONTEXT_TOKENS = 4096
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "head": "name, download, memory on a CPU, memory on a GPU, licence and access",
        "none": "none",
        "cpu_only": "CPU only",
        "open": "open",
        "gated": "gated",
    },
    "ko": {
        "head": "이름, 내려받을 크기, CPU 메모리, GPU 메모리, 라이선스와 접근",
        "none": "없음",
        "cpu_only": "CPU 전용",
        "open": "공개",
        "gated": "승인 필요",
    },
}


def settings_table() -> str:
    rows = ["| flag | variable | what it does | default |", "|---|---|---|---|"]
    for option in options():
        default = {True: "on", False: "off", "": "none"}.get(option.default, str(option.default))
        rows.append(f"| `{option.flag}` | `{option.variable}` | {option.help} | {default} |")
    return "\n".join(rows)


def tree() -> str:
    """Every module with the first sentence of its purpose."""
    lines = ["```", "app.py", "llama_demo/"]
    for path in sorted((ROOT / "llama_demo").rglob("*.py"), key=lambda path: (path.parent.parts, path.name)):
        name = path.relative_to(ROOT / "llama_demo").as_posix()
        purpose = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = re.split(r"(?<=\.)\s", purpose.replace("\n", " ") + " ")[0].rstrip(" .")
        lines.append(f"  {name:<36}{first}")
    return "\n".join([*lines, "```"])


def models_table(language: str) -> str:
    """The catalog, the same model in two formats on one line, the smallest first."""
    rows = ["| " + " | ".join(WORDS[language]["head"].split(", ")) + " |", "|---|--:|--:|--:|---|"]
    entries = sorted((EMBEDDED, *packaged()), key=weights_of)
    rows += [models_row(list(same), WORDS[language]) for _, same in groupby(entries, key=weights_of)]
    return "\n".join(rows)


def weights_of(entry: Entry) -> tuple[int, str, str]:
    return entry.parameters, entry.good_for, entry.file


def models_row(entries: list[Entry], words: dict[str, str]) -> str:
    entry, model = entries[0], read_model(entries[0])
    names = ", ".join(f"`{entry.name}`" for entry in entries)
    on_gpu = needs(gpu_form(model, "16-bit")) if entry.format != "gguf" else words["cpu_only"]
    on_cpu = needs(cpu_form(model, "openvino", "q4_0" if is_converted(entry) else "gguf", FAST_CACHE_BYTES))
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[(entry.quantization or "f16").upper()]]
    download = words["none"] if entry.package else gigabytes(entry.parameters / block * size)
    link = f"[{entry.licence}]({entry.link}), {words[entry.access]}"
    return f"| {names} | {download} | {on_cpu} | {on_gpu} | {link} |"


def needs(form: Form) -> str:
    return gigabytes(least(form, "", 0, CONTEXT_TOKENS).bytes)


def gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB"


TABLES: tuple[tuple[str, Path, Callable[[], str]], ...] = (
    ("models", README, partial(models_table, "en")),
    ("models", KOREAN, partial(models_table, "ko")),
    ("settings", ROOT / "docs" / "settings.md", settings_table),
    ("tree", ROOT / "docs" / "architecture.md", tree),
)


def between(text: str, name: str) -> str:
    found = re.search(f"<!-- {name} -->\n(.*?)\n?<!-- end of {name} -->", text, re.DOTALL)
    assert found, f"the page has no place for {name}"
    return found[1].strip()


@pytest.mark.parametrize(("name", "page", "make"), TABLES)
def test_a_documents_table_says_what_the_code_says(name: str, page: Path, make: Callable[[], str]) -> None:
    assert between(page.read_text(encoding="utf-8"), name) == make(), "run `python -m tests.test_readme`"


def anchors(text: str) -> set[str]:
    """What a link may name in a page, as its headings are turned into names."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_picture_page_and_heading_that_a_document_names_is_there(page: Path) -> None:
    for target, anchor in links(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), f"{page.name} names {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page.name} names {target}#{anchor}"


def test_every_picture_is_shown_somewhere() -> None:
    shown = {Path(target).name for page in PAGES for target, _ in links(page.read_text(encoding="utf-8"))}
    assert {picture.name for picture in (ROOT / "docs" / "images").iterdir()} <= shown


def links(text: str) -> Iterable[tuple[str, str]]:
    """The links to other files, and to headings."""
    return re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text)


def structure(text: str) -> dict[str, list[str]]:
    """What does not depend on the language: headings by level, code, pictures, links, and each row's own."""
    fence = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    prose = fence.sub("", text)
    rows = re.findall(r"^\|.*\|$", prose, re.MULTILINE)
    return {
        "headings": re.findall(r"^#+(?= )", prose, re.MULTILINE),
        "code": fence.findall(text),
        "pictures": re.findall(r"!\[[^]]+\]\(([^)]+)\)", prose),
        "links": sorted({link for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith("README")}),
        "options": sorted(set(re.findall(r"`[^`]+`", prose))),
        "rows": [" ".join(re.findall(r"`[^`]+`|\]\([^)]+\)|\d[\d.]*", row)) for row in rows],
        "points": re.findall(r"^- (?=\S)", prose, re.MULTILINE),
    }


def test_the_readme_in_korean_has_all_that_the_english_one_has() -> None:
    english, korean = (README.read_text(encoding="utf-8"), KOREAN.read_text(encoding="utf-8"))
    assert structure(korean) == structure(english[english.index("\n# ") :])
    assert "](README.ko.md)" in english
    assert "](README.md)" in korean


def test_the_spaces_gradio_is_one_that_the_requirements_allow() -> None:
    version = re.search(r"^sdk_version: (\S+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = re.search(r"^gradio\[mcp\]>=([\d.]+),<(\d+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert version is not None
    assert wanted is not None
    assert version[1].startswith(wanted[1])


def main() -> None:
    for name, page, make in TABLES:
        text = page.read_text(encoding="utf-8")
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = text[: text.index(begin) + len(begin)] + make() + "\n" + text[text.index(end) :]
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

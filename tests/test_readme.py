"""The README's tables are made from the code, so that they cannot drift: `python -m tests.test_readme` writes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from llama_demo.settings import options

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


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


TABLES = {"settings": settings_table, "tree": tree}


def between(text: str, name: str) -> str:
    found = re.search(f"<!-- {name} -->\n(.*?)\n?<!-- end of {name} -->", text, re.DOTALL)
    assert found, f"the README has no place for {name}"
    return found[1].strip()


@pytest.mark.parametrize("name", TABLES)
def test_the_readmes_table_says_what_the_code_says(name: str) -> None:
    assert between(README.read_text(encoding="utf-8"), name) == TABLES[name](), "run `python -m tests.test_readme`"


def test_every_picture_and_page_that_the_readme_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (ROOT / target).is_file(), target


def test_the_spaces_gradio_is_one_that_the_requirements_allow() -> None:
    version = re.search(r"^sdk_version: (\S+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = re.search(r"^gradio\[mcp\]>=([\d.]+),<(\d+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert version is not None
    assert wanted is not None
    assert version[1].startswith(wanted[1])


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = text[: text.index(begin) + len(begin)] + make() + "\n" + text[text.index(end) :]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The layers of the program, as the source has them: who may import whom, and who may name which library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "llama_demo"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("serve", "doctor", "bench", "model_files", "text_commands", "classify_command", "credential_commands"),
    ("file_command",),
    ("bench_client", "progress_line", "text_arguments"),
    ("ui", "api"),
    ("runtime",),
    ("classify_files",),
    ("text_files",),
    ("generation",),
    ("classify",),
    ("leasing",),
    ("metrics",),
    ("management",),
    ("shelf", "added_models"),
    ("listing",),
    ("registry",),
    ("ledger",),
    ("eviction", "residents"),
    ("loading", "sheet"),
    ("engines",),
    ("model_cache",),
    ("entry_plans",),
    ("entry_files", "saving"),
    ("fitting",),
    ("placement_plan",),
    ("placement", "hub_push", "hub_identity", "checkpoints"),
    ("hub",),
    ("hub_fetch",),
    ("prompts", "detokenize"),
    ("catalog", "tokenizer", "batch"),
    ("catalog_file", "licences"),
    ("table_output",),
    ("tables",),
    ("limits", "credentials", "settings", "devices", "observe", "jobs", "table_lines"),
    ("budgets", "space"),
    ("values", "messages", "visitors"),
    (
        *("classify_errors", "hub_errors", "model_errors", "push_errors"),
        *("visitor_errors", "api_errors", "file_errors", "remote_errors"),
    ),
    ("errors",),
    ("reasons",),
)
"""From the top down. A module imports from the lines below its own, and never from a neighbour on its line."""

LIBRARIES: dict[str, tuple[str, ...]] = {
    "gradio": ("ui",),
    "torch": (
        "checkpoints/meta",
        "engines/transformers",
    ),
    "transformers": ("engines/transformers", "model_cache"),
    "spaces": ("engines/transformers_lent",),
    "peft": ("engines/transformers",),
    "openvino": ("engines/openvino",),
    "openvino_genai": ("engines/openvino",),
    "gguf": ("checkpoints",),
    "safetensors": ("checkpoints", "classify/head", "engines/transformers"),
    "sentencepiece": ("checkpoints", "sheet"),
    "tokenizers": ("tokenizer", "detokenize", "checkpoints", "bench"),
    "sklearn": ("classify/training",),
    "threadpoolctl": ("classify/training",),
    "jinja2": ("prompts",),
    "huggingface_hub": ("hub",),
    "starlette": ("api", "ui"),
    "fastapi": ("api", "ui"),
    "pydantic": ("api",),
    "prometheus_client": ("metrics",),
    "httpx": ("bench",),
    "openai": ("engines/remote",),
    "httpx2": ("engines/remote", "hub"),
}
"""Which parts may name a library: everything else goes through them."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


def imports(path: Path) -> set[str]:
    """Every module that the file names, wherever in it, as full dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def layer_of(part: str) -> int:
    for index, layer in enumerate(LAYERS):
        if part in layer:
            return index
    raise AssertionError(f"llama_demo/{part} stands in no layer: add it to LAYERS")


def parts_named(path: Path) -> set[str]:
    """The top-level parts of our own package that the file imports; `llama_demo` alone (its version) is none."""
    known = {part for layer in LAYERS for part in layer}
    named = {name.split(".")[1] for name in imports(path) if name.startswith("llama_demo.")}
    return {part for part in named if part in known or (PACKAGE / f"{part}.py").exists() or (PACKAGE / part).is_dir()}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_from_the_layers_below_it(path: Path) -> None:
    own = name_of(path).split("/")[0]
    if own in ("__init__", "."):
        return
    for part in parts_named(path) - {own}:
        assert layer_of(part) > layer_of(own), f"{name_of(path)} imports {part}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_library_is_named_only_where_the_table_allows(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        allowed = LIBRARIES.get(library)
        if allowed is not None:
            assert name_of(path).startswith(allowed), f"{name_of(path)} names {library}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_is_short_and_opens_with_its_purpose(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    if tree.body:
        purpose = ast.get_docstring(tree)
        assert purpose, f"{path} says nothing of its purpose"


def test_no_function_is_long() -> None:
    lengths = {
        f"{name_of(path)}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not {name: length for name, length in lengths.items() if length > 80}
    long = [name for name, length in lengths.items() if length >= 40]
    assert len(long) <= len(lengths) / 10, f"more than one function in ten is long: {long}"


def test_importing_the_package_and_building_the_page_imports_no_torch() -> None:
    program = (
        "import sys, llama_demo.serve, llama_demo.ui, llama_demo.api, llama_demo.runtime\n"
        "from llama_demo.settings import read_settings\n"
        "runtime = llama_demo.runtime.Runtime(read_settings({}, {}))\n"
        "llama_demo.ui.build(runtime)\n"
        "runtime.close()\n"
        "print(sorted({'torch', 'transformers', 'openvino', 'openvino_genai'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"

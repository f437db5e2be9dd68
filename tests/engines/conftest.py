"""Engines for the contract tests. A new one needs a `Make` in `MAKES`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llama_demo.checkpoints.gguf import write_gguf
from llama_demo.engines.openvino import OpenVINOEngine
from llama_demo.engines.openvino_analysis import OpenVINOAnalysis
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.engines.transformers_lent import LentEngine
from tests import tiny
from tests.engines.contract import Engines, load_folder

TINY_PROMPT = (1, 40, 77, 120, 55, 301, 12, 90, 260, 33)
EMBEDDED_PROMPT = (504, 3575, 282, 4649, 314, 260, 2240, 28, 284, 260)
"""'The capital of' and on, as the embedded model's tokenizer has it: any ids below its 49,152 would do."""


@pytest.fixture(scope="session")
def embedded_folder(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's own values, dequantised once by transformers, as float32 in Hugging Face format."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("embedded") / "smollm2"
    model = AutoModelForCausalLM.from_pretrained(str(embedded_gguf.parent), gguf_file=embedded_gguf.name)
    # The library calls the model quantised still, and refuses to save it.
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(str(folder))
    return folder


Folders = Callable[[str], Path]
"""Gives a session's folder by its fixture's name, made at the first call."""
Make = Callable[[Folders], Engines]


def _transformers(
    folder: Path, prompt: tuple[int, ...], tolerance: float, tokens: int, layers: dict[str, int] | None = None
) -> Engines:
    engine = TransformersEngine(
        folder, name=folder.name, eos_ids=(), context_tokens=tiny.CONTEXT_TOKENS, reproducible=True, layers=layers
    )
    return Engines(engine, engine, lambda: load_folder(folder), prompt, True, tolerance, tokens)


def make_tiny(folders: Folders) -> Engines:
    return _transformers(folders("tiny_folder"), TINY_PROMPT, 1e-4, 24)


def make_tiny_split(folders: Folders) -> Engines:
    """Its last layer and its head are kept on the disk, as a device of their own: accelerate fetches them each time."""
    return _transformers(folders("tiny_folder"), TINY_PROMPT, 1e-4, 24, {"cpu": 2, "disk": 1})


def make_tiny_lent(folders: Folders) -> Engines:
    """Each request in a call of its own, where nothing is lent."""
    folder = folders("tiny_folder")
    engine = LentEngine(folder, name=folder.name, eos_ids=(), context_tokens=tiny.CONTEXT_TOKENS, reproducible=True)
    return Engines(engine, engine, lambda: load_folder(folder), TINY_PROMPT, True, 1e-4, 24)


def make_embedded(folders: Folders) -> Engines:
    return _transformers(folders("embedded_folder"), EMBEDDED_PROMPT, 1e-3, 8)


def make_tiny_openvino(folders: Folders) -> Engines:
    """A float16 GGUF file of the tiny Llama, in the exact profile: one process generates, another scores. The reference
    reads the same file."""
    folder = folders("tiny_folder")
    file = folder.parent / f"{folder.name}-f16.gguf"
    if not file.exists():
        write_gguf(folder, file, to="f16")
    generator = OpenVINOEngine(
        file,
        name=folder.name,
        eos_ids=(),
        context_tokens=tiny.CONTEXT_TOKENS,
        cache_bytes=50_000_000,
        reproducible=True,
    )
    analyst = OpenVINOAnalysis(file, name=folder.name, context_tokens=tiny.CONTEXT_TOKENS, reproducible=True)
    return Engines(
        generator,
        analyst,
        lambda: load_folder(file.parent, gguf_file=file.name),
        TINY_PROMPT,
        exact=True,
        tolerance=5e-3,
        penalises=False,
    )


MAKES: dict[str, Make] = {
    "openvino, tiny": make_tiny_openvino,
    "transformers, tiny": make_tiny,
    "transformers, split": make_tiny_split,
    "transformers, lent": make_tiny_lent,
    "transformers, embedded": make_embedded,
}


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes engines, as many as a test likes; all are closed at the end."""

    make: Make
    folders: Folders
    made: list[Engines]

    def __call__(self) -> Engines:
        self.made.append(self.make(self.folders))
        return self.made[-1]

    def close(self) -> None:
        for engines in self.made:
            engines.generator.close()
            engines.analyst.close()


SLOW = {"transformers, embedded"}
"""The tests' own model shows the same in a tenth of the time."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MAKES]
)
def maker(request: Any) -> Iterator[Maker]:
    maker = Maker(MAKES[request.param], request.getfixturevalue, [])
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def engines(maker: Maker) -> Engines:
    return maker()


@pytest.fixture(scope="module")
def tiny_engines(request: Any) -> Iterator[Engines]:
    """One engine of the quickest kind."""
    maker = Maker(make_tiny, request.getfixturevalue, [])
    yield maker()
    maker.close()

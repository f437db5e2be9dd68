"""What each way of loading a model is counted for beside what the processes then use: `python -m benchmarks.memory`.

The embedded model, and a random one of 233 million parameters, large enough that what is held of it twice shows. Each
is loaded, used and unloaded in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.embedded import packaged, prepare_tokenizer
from benchmarks.running import ROOT, environment
from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints.gguf_convert import write_llama
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.checkpoints.hf_write import Dtype, write_hf
from llama_demo.checkpoints.llama import EMBEDDING, Checkpoint, read_folder

CONTEXT_TOKENS = 512
WITHIN = 0.1
"""What is counted and what is used may differ by so much of it."""
LARGER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way of loading: from a GGUF file of type `gguf` through OpenVINO, or from a Hugging Face folder of type
    `folder` through transformers, computed with in `dtype`."""

    model: Literal["embedded", "larger"]
    gguf: Quantization | None = None
    folder: Dtype | None = None
    dtype: str = "auto"
    reproducible: bool = False

    def __str__(self) -> str:
        computed = "reproducible" if self.reproducible else self.dtype
        return f"{self.model} {self.gguf or self.folder} {computed}"


WAYS = (
    Way("embedded", gguf="q8_0"),
    Way("embedded", gguf="q8_0", reproducible=True),
    Way("larger", gguf="q8_0"),
    Way("larger", gguf="q4_0"),
    Way("larger", gguf="f16"),
    Way("larger", gguf="f16", reproducible=True),
    Way("embedded", folder="bfloat16"),
    Way("embedded", folder="float16"),
    Way("embedded", folder="bfloat16", reproducible=True),
    Way("larger", folder="float32"),
    Way("larger", folder="float32", dtype="bfloat16"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Bytes."""

    counted: int
    used: int

    @property
    def ratio(self) -> float:
        return self.used / self.counted

    @property
    def is_close(self) -> bool:
        return abs(self.ratio - 1) <= WITHIN


def measure(way: Way, folder: Path) -> dict[str, Figure]:
    """What it took: `steady` after requests as long as the context, at its `peak`, and `freed` when it was unloaded.
    `folder` keeps the models' files."""
    rounds = 4 if way.gguf else 1  # OpenVINO's cache grows with them, that of transformers is there from the start
    command = [sys.executable, "-m", "benchmarks.memory_run", write(way, folder), str(folder / "cache")]
    command += ["--context-tokens", str(CONTEXT_TOKENS), "--rounds", str(rounds), "--dtype", way.dtype]
    command += ["--reproducible"] if way.reproducible else []
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return {name: Figure(*figure) for name, figure in figures.items()}


def write(way: Way, folder: Path) -> str:
    """What to start the app with; files that are missing are made."""
    if way.model == "embedded" and way.gguf:
        return EMBEDDED.name  # which is converted when it is first loaded
    target = folder / f"{way.model}-{way.gguf}.gguf" if way.gguf else folder / f"{way.model}-{way.folder}"
    if not target.exists():
        source = read_gguf(packaged(), prepare_tokenizer(folder))
        if way.model == "larger":
            source = _larger(source, folder / "larger")
        if way.gguf:
            write_llama(source, target, to=way.gguf)
        else:
            write_hf(source, target, dtype=way.folder or "auto")
    return str(target)


def _larger(embedded: Checkpoint, folder: Path) -> Checkpoint:
    """Random numbers in float32, with the embedded model's tokenizer."""
    if not folder.is_dir():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        rows = embedded.tensors[EMBEDDING].shape[0]
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=rows, tie_word_embeddings=True, dtype="float32", **LARGER))
        model.save_pretrained(str(folder))
        shutil.copytree(embedded.tokenizer, folder, dirs_exist_ok=True)
    return read_folder(folder)


def line(way: Way, figures: dict[str, Figure]) -> str:
    cells = "".join(
        f"{figure.counted / 1e6:>9.0f}{figure.used / 1e6:>7.0f}{figure.ratio:>7.0%}" for figure in figures.values()
    )
    return f"{way!s:<32}{cells}{'' if all(figure.is_close for figure in figures.values()) else '  MISSED'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", action="append", choices=list(map(str, WAYS)), help="only this one; may be repeated")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work-folder", type=Path, default=Path("build/benchmarks"), help="for the models, some 4 GB")
    given = parser.parse_args()
    print(f"{'MB counted and used':<32}{'steady':>23}{'peak':>23}{'given back':>23}")
    missed = False
    for way in [way for way in WAYS if given.way is None or str(way) in given.way]:
        for _ in range(given.repeats):
            figures = measure(way, given.work_folder.resolve())
            print(line(way, figures), flush=True)
            missed = missed or not all(figure.is_close for figure in figures.values())
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())

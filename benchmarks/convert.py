"""What converting a 7B of Llama-2's shape takes, in memory and time: `python -m benchmarks.convert FOLDER`.

Makes a checkpoint in Meta's layout with random numbers in FOLDER (some 45 GB), converts it each way by the command line
in a process of its own, watches that process's anonymous memory, and copies the files beside it for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import sentencepiece
import torch

DIM, LAYERS, HEADS, WIDE, ROWS, SHARDS = 4096, 32, 32, 11008, 32000, 4
_TILE = 2**22
_TEXT = "The harbour lies below the old town, and in the morning the boats come back with the tide behind them."
WAYS = (("hf",), ("gguf", "--quantize", "q8_0"), ("gguf", "--quantize", "q4_0"))


def make_checkpoint(folder: Path) -> None:
    """Four shards, each of which is in memory while it is written."""
    folder.mkdir(parents=True)
    values = {"dim": DIM, "n_layers": LAYERS, "n_heads": HEADS, "norm_eps": 1e-5, "multiple_of": 256, "vocab_size": -1}
    (folder / "params.json").write_text(json.dumps(values))
    tile = (torch.randn(_TILE) * 0.02).to(torch.bfloat16)

    def numbers(*shape: int) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=torch.bfloat16)
        flat = tensor.view(-1)
        for start in range(0, len(flat), _TILE):
            flat[start : start + _TILE] = tile[: len(flat) - start]
        return tensor

    for shard in range(SHARDS):
        part = {
            "tok_embeddings.weight": numbers(ROWS, DIM // SHARDS),
            "norm.weight": numbers(DIM),
            "output.weight": numbers(ROWS // SHARDS, DIM),
        }
        for layer in range(LAYERS):
            at = f"layers.{layer}"
            part |= {f"{at}.attention.{name}.weight": numbers(DIM // SHARDS, DIM) for name in ("wq", "wk", "wv")}
            part |= {f"{at}.feed_forward.{name}.weight": numbers(WIDE // SHARDS, DIM) for name in ("w1", "w3")}
            part |= {f"{at}.{name}.weight": numbers(DIM) for name in ("attention_norm", "ffn_norm")}
            part[f"{at}.attention.wo.weight"] = numbers(DIM, DIM // SHARDS)
            part[f"{at}.feed_forward.w2.weight"] = numbers(DIM, WIDE // SHARDS)
        torch.save(part, folder / f"consolidated.{shard:02}.pth")
        del part


def make_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([_TEXT] * 20),
            model_writer=file,
            model_type="bpe",
            vocab_size=300,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )


def forget(folder: Path) -> None:
    """Puts the files out of the system's cache, so that reading them is cold."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def watched(command: list[str]) -> tuple[float, float]:
    """Runs `command`; its seconds, and the most anonymous memory it had, in GB."""
    started, most = time.monotonic(), 0
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines() if status.exists() else []
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.monotonic() - started, most * 1024 / 1e9


def copied(source: Path, target: Path) -> float:
    started = time.monotonic()
    for path in source.iterdir():
        with path.open("rb") as read, (target / path.name).open("wb") as written:
            shutil.copyfileobj(read, written, 2**24)
            written.flush()
            os.fsync(written.fileno())
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder for some 45 GB")
    root: Path = parser.parse_args().folder
    source = root / "meta"
    make_checkpoint(source)
    make_tokenizer(source)
    size = sum(path.stat().st_size for path in source.iterdir()) / 1e9
    forget(source)
    (root / "copy").mkdir()
    seconds = copied(source, root / "copy")
    shutil.rmtree(root / "copy")
    print(f"{'cold copy':<24}{size:6.1f} GB{seconds:8.0f} s")
    for way in WAYS:
        forget(source)
        target = root / "-".join(("out", *way)).replace("---", "-")
        command = [sys.executable, "-m", "llama_demo", "convert", str(source), str(target), "--to", *way]
        seconds, peak = watched(command)
        files = [target] if target.is_file() else list(target.iterdir())
        size = sum(path.stat().st_size for path in files) / 1e9
        print(f"{' '.join(way):<24}{size:6.1f} GB{seconds:8.0f} s{peak:8.2f} GB at most", flush=True)
        shutil.rmtree(target) if target.is_dir() else target.unlink()


if __name__ == "__main__":
    main()

"""Llama-2-7B in 4 bits with what a free Space has, 16 GB and 2 cores: `python -m benchmarks.space FOLDER`.

Writes a file of its shape with random numbers into FOLDER (3.8 GB, once), starts the app on it within a Space's limits,
has four visitors chat, and then asks for a classification, which takes a second graph of the same file. The limits are
a control group's, beyond which the system ends a process; where none can be made, the app is told its share of memory
and may take more, which is said.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
from gradio_client import Client
from gradio_client.exceptions import AppError

from benchmarks.control_group import limited
from benchmarks.convert import DIM, HEADS, LAYERS, ROWS, WIDE, make_tokenizer
from benchmarks.results import Finding
from benchmarks.servers import HOST, end_in_order, free_port, memory_bytes, started
from llama_demo.bench import prompt
from llama_demo.checkpoints.gguf_vocabulary import vocabulary_fields
from llama_demo.checkpoints.gguf_write import (
    FILE_TYPES,
    QUANTIZATION_VERSION,
    PlannedTensor,
    encode_fields,
    type_for,
    write_container,
)
from llama_demo.runtime import MEMORY_SHARE

ROOT = Path(__file__).parent.parent
SPACE_GB, CORES, VISITORS, ROUNDS, NEW_TOKENS = 16.0, 2, 4, 3, 64
MOST_GB = 12.0
LOAD_SECONDS = 600.0
SAMPLE_SECONDS = 0.5
_BLOCK_BYTES, _SCALE = 18, np.float16(0.004)
_BLOCKS_AT_ONCE = 2**18


def write_model(target: Path) -> None:
    """A GGUF file of Llama-2-7B's shape: blocks of a small scale and random nibbles, vectors of ones."""
    with tempfile.TemporaryDirectory() as folder:
        make_tokenizer(Path(folder))
        vocabulary = vocabulary_fields(Path(folder), ROWS)
    fields = {
        "general.architecture": "llama",
        "general.file_type": FILE_TYPES["q4_0"],
        "general.quantization_version": QUANTIZATION_VERSION,
        "llama.block_count": LAYERS,
        "llama.context_length": 4096,
        "llama.embedding_length": DIM,
        "llama.feed_forward_length": WIDE,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": DIM // HEADS,
        "llama.vocab_size": ROWS,
        **vocabulary,
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (ROWS, DIM), "output_norm": (DIM,), "output": (ROWS, DIM)}
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes |= {f"{at}.attn_{name}": (DIM, DIM) for name in ("q", "k", "v", "output")}
        shapes |= {f"{at}.ffn_{name}": (WIDE, DIM) for name in ("gate", "up")}
        shapes |= {f"{at}.ffn_down": (DIM, WIDE), f"{at}.attn_norm": (DIM,), f"{at}.ffn_norm": (DIM,)}
    random = np.random.default_rng(0)
    tensors = [
        PlannedTensor(f"{name}.weight", shape, type_for(shape, "q4_0"), partial(_chunks, shape, random))
        for name, shape in shapes.items()
    ]
    write_container(target, encode_fields(fields), len(fields), tensors)


def _chunks(shape: tuple[int, ...], random: np.random.Generator) -> Iterator[bytes]:
    if len(shape) == 1:
        yield np.ones(shape, np.float32).tobytes()
        return
    count = math.prod(shape) // 32
    for start in range(0, count, _BLOCKS_AT_ONCE):
        blocks = random.integers(0, 256, (min(_BLOCKS_AT_ONCE, count - start), _BLOCK_BYTES), np.uint8)
        blocks[:, :2] = np.frombuffer(_SCALE.tobytes(), np.uint8)
        yield blocks.tobytes()


class Peak:
    """The most memory that a process and its children held since it was made."""

    def __init__(self, process: psutil.Process) -> None:
        self.bytes = 0
        self._process, self._stopped = process, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, memory_bytes(self._process))

    def stop(self) -> float:
        """In GB."""
        self._stopped.set()
        self._thread.join()
        return self.bytes / 1e9


def wait_until_loaded(url: str) -> float:
    """The seconds it took, its warming up included."""
    begun = time.monotonic()
    while time.monotonic() - begun < LOAD_SECONDS:
        answer = httpx.get(f"{url}/health", timeout=30.0, trust_env=False)
        if answer.status_code != httpx.codes.OK:
            raise SystemExit(f"It cannot be loaded: {answer.json()['reason']}")
        if answer.json()["state"] == "ready":
            return time.monotonic() - begun
        time.sleep(SAMPLE_SECONDS)
    raise SystemExit(f"It was not loaded within {LOAD_SECONDS:g} s")


@dataclass(frozen=True, slots=True)
class Reply:
    tokens: int
    seconds: float


def chat(url: str, visitor: int) -> list[Reply]:
    """One visitor's messages, one after the other."""
    replies = []
    with httpx.Client(timeout=LOAD_SECONDS, trust_env=False) as http:
        for turn in range(ROUNDS):
            begun = time.monotonic()
            messages = [{"role": "user", "content": prompt(turn * VISITORS + visitor)}]
            asked = {"messages": messages, "max_tokens": NEW_TOKENS, "seed": visitor}
            answer = http.post(f"{url}/v1/chat/completions", json=asked).raise_for_status().json()
            replies.append(Reply(answer["usage"]["completion_tokens"], time.monotonic() - begun))
    return replies


def classify(url: str) -> str:
    """What came of it, in a word or in the app's own."""
    try:
        Client(url, verbose=False).predict(["I love it"], labels=["good", "bad"], api_name="/classify")
    except AppError as error:
        return f"refused: {error}"
    return "done"


@contextmanager
def within_limits(command: list[str | Path]) -> Iterator[list[str | Path]]:
    """What runs `command` with no more than a Space has; says so, or why the limits are not real."""
    with ExitStack() as held:
        try:
            group = held.enter_context(limited(int(SPACE_GB * 1e9), CORES))
        except OSError as error:
            print(f"The limits are not real here, the app is only told of them ({error})")
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
            command = [*command, "--memory-gb", str(SPACE_GB * MEMORY_SHARE)]
        else:
            print(f"The limits are real: {SPACE_GB:g} GB and the time of {CORES} cores")
            command = [*group.command(command)]
        yield command


def measure(file: Path, cache: Path) -> list[Finding]:
    url = f"http://{HOST}:{(port := free_port())}"
    command: list[str | Path] = [sys.executable, ROOT / "app.py", "--port", str(port), "--model", file]
    command += ["--cache-dir", cache]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        within_limits(command) as command,
        started(command, ready_url=url, environment=environment, folder=ROOT) as process,
    ):
        loading = Peak(process)
        load_seconds = wait_until_loaded(url)
        load_gb = loading.stop()
        chatting = Peak(process)
        begun = time.monotonic()
        with ThreadPoolExecutor(VISITORS) as visitors:
            replies = [reply for each in visitors.map(partial(chat, url), range(VISITORS)) for reply in each]
        chat_seconds = time.monotonic() - begun
        chat_gb = chatting.stop()
        classifying = Peak(process)
        outcome = classify(url)
        classify_gb = classifying.stop()
    print(f"A classification on it: {outcome}")
    return [
        Finding("loading and warming up, s", load_seconds),
        Finding("loading and warming up, GB at most", load_gb, at_most=MOST_GB),
        Finding(f"{VISITORS} visitors, tokens a second", sum(reply.tokens for reply in replies) / chat_seconds),
        Finding(f"{VISITORS} visitors, slowest reply, s", max(reply.seconds for reply in replies)),
        Finding(f"{VISITORS} visitors, GB at most", chat_gb, at_most=MOST_GB),
        Finding("a classification asked for as well, GB at most", classify_gb, at_most=SPACE_GB),
    ]


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder for some 4 GB; the file is kept there")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "random-7b.Q4_0.gguf"
    if not file.exists():
        write_model(file)
    found = measure(file, folder / "cache")
    print(*(finding.line() for finding in found), sep="\n")
    return 1 if any(finding.met is False for finding in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())

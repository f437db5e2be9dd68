"""What a model is counted for beside what its process then uses: at its peak, in its steady state, and once unloaded.

The model's process is measured whole. (The page itself and the tokenizers live on the share of the memory that no model
is given.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]
CONTEXT_TOKENS = 1024

PROGRAM = """
import json, random, re, sys, time
from pathlib import Path
import psutil
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Sampling

model, cache, context = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
me = psutil.Process()

def engines():
    return me.children(recursive=True)

def resident():
    return sum(process.memory_info().rss for process in engines())

def peak():
    status = [Path(f"/proc/{process.pid}/status").read_text() for process in engines()]
    return sum(int(re.search(r"VmHWM:\\s+(\\d+)", text)[1]) * 1024 for text in status)

with Runtime(Settings(model=model, cache_dir=cache, memory_gb=8, context_tokens=context, idle_minutes=0)) as runtime:
    name = runtime.default_model
    counted = runtime.models()[0].bytes
    draw, short = random.Random(7), Sampling(max_new_tokens=8)
    with runtime.registry.lease(name) as loaded:
        most = loaded.tokenizer.vocabulary_size - 10
        for _ in range(5):
            streams = [
                loaded.engine.generate([draw.randrange(10, most) for _ in range(context - 40)], short) for _ in range(2)
            ]
            for stream in streams:
                for _ in stream:
                    pass
        steady, highest = resident(), peak()
    runtime.management.unload(name)
    while runtime.memory()[0].used_bytes:
        time.sleep(0.05)
    print(json.dumps({"counted": counted, "steady": steady, "peak": highest, "freed": steady - resident()}))
"""


@dataclass(frozen=True)
class Measured:
    counted: int
    steady: int
    peak: int
    freed: int


def measure(model: str, cache: Path) -> Measured:
    command = [sys.executable, "-c", PROGRAM, model, str(cache), str(CONTEXT_TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def test_the_embedded_model_takes_what_it_is_counted_for_and_gives_it_back(embedded_gguf: Path, tmp_path: Path) -> None:
    measured = measure(EMBEDDED.name, tmp_path)
    assert measured.steady == pytest.approx(measured.counted, rel=0.1)
    assert measured.peak == pytest.approx(measured.counted, rel=0.1)
    assert measured.freed == pytest.approx(measured.counted, rel=0.1)

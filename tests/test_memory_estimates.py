"""What a model is counted for beside what the processes then use: at their peak, in their steady state, and once it is
unloaded.

OpenVINO's process is measured whole. transformers runs in the page's own process, so what that had before is taken off;
its libraries stay there when the model goes. (The page itself and the tokenizers live on the share of the memory that
no model is given.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints.gguf import write_gguf, write_tokenizer
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.hf_write import Dtype, write_hf
from llama_demo.placement import TORCH_HEAD_ROOM_BYTES
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]
CONTEXT_TOKENS = 512
LARGER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}
"""245 million parameters: large enough that what is held of them twice shows."""

PROGRAM = """
import json, random, re, sys, time
from pathlib import Path
import psutil
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import Sampling

model, cache, context, dtype, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
me = psutil.Process()

def read(field):
    texts = [Path(f"/proc/{process.pid}/status").read_text() for process in me.children(recursive=True) or [me]]
    return sum(int(re.search(field + r":\\s+(\\d+)", text)[1]) * 1024 for text in texts)

settings = Settings(
    model=model, cache_dir=cache, memory_gb=8, context_tokens=context, idle_minutes=0, dtype=dtype, device="cpu"
)
with Runtime(settings) as runtime:
    name, needs = runtime.default_model, runtime.models()[0].needs
    page = read("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    draw, short = random.Random(7), Sampling(max_new_tokens=8)
    with runtime.registry.lease(name) as loaded:
        own = not me.children()
        before = page if own else 0
        most = loaded.tokenizer.vocabulary_size - 10
        for _ in range(rounds):
            texts = [[draw.randrange(10, most) for _ in range(context - 40)] for _ in range(2)]
            for stream in [loaded.engine.generate(text, short) for text in texts]:
                for _ in stream:
                    pass
        steady, peak = read("VmRSS") - before, read("VmHWM") - before
    runtime.management.unload(name)
    while runtime.memory()[0].used_bytes:
        time.sleep(0.05)
    least, until = read("VmRSS"), time.monotonic() + 3
    while own and time.monotonic() < until:  # threads that end give back theirs
        time.sleep(0.05)
        least = min(least, read("VmRSS"))
    counts = {"counted": needs.bytes, "counted_peak": needs.peak_bytes or needs.bytes, "steady": steady, "peak": peak}
    print(json.dumps({**counts, "freed": steady - (least - before if own else 0)}))
"""


@dataclass(frozen=True)
class Measured:
    counted: int
    counted_peak: int
    steady: int
    peak: int
    freed: int


def measure(model: str, cache: Path, dtype: str = "auto", rounds: int = 1) -> Measured:
    """`rounds` of two requests as long as the context: OpenVINO's cache grows with them, that of transformers is there
    from the start."""
    command = [sys.executable, "-c", PROGRAM, model, str(cache), str(CONTEXT_TOKENS), dtype, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def larger_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_byte_level(tmp_path_factory.mktemp("larger") / "larger-llama", **LARGER)


def test_the_embedded_model_takes_what_it_is_counted_for_and_gives_it_back(embedded_gguf: Path, tmp_path: Path) -> None:
    measured = measure(EMBEDDED.name, tmp_path, rounds=4)
    assert measured.counted_peak == measured.counted
    assert measured.steady == pytest.approx(measured.counted, rel=0.1)
    assert measured.peak == pytest.approx(measured.counted_peak, rel=0.1)
    assert measured.freed == pytest.approx(measured.counted, rel=0.1)


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_the_embedded_model_through_transformers_does_so_but_for_the_libraries(
    stored: Dtype, embedded_gguf: Path, tmp_path: Path
) -> None:
    """bfloat16 is used as it is in the file; float16, as the family is published, is cast on the way in.

    What the cast has left between the C library's pages comes back in part only, and not each time as much.
    """
    write_tokenizer(embedded_gguf, tmp_path / "tokenizer")
    write_hf(read_gguf(embedded_gguf, tmp_path / "tokenizer"), tmp_path / "folder", dtype=stored)
    measured = measure(str(tmp_path / "folder"), tmp_path / "cache")
    assert (measured.counted_peak > measured.counted) == (stored == "float16")
    assert measured.steady == pytest.approx(measured.counted, rel=0.1)
    assert measured.peak == pytest.approx(measured.counted_peak, rel=0.1)
    given_back = measured.counted - TORCH_HEAD_ROOM_BYTES
    assert measured.freed == pytest.approx(given_back, rel=0.25 if stored == "float16" else 0.1)


def test_a_larger_gguf_file_is_counted_with_what_openvino_makes_of_it(larger_folder: Path, tmp_path: Path) -> None:
    write_gguf(larger_folder, tmp_path / "larger.gguf", to="q8_0")
    measured = measure(str(tmp_path / "larger.gguf"), tmp_path / "cache", rounds=4)
    assert measured.steady == pytest.approx(measured.counted, rel=0.1)
    assert measured.peak == pytest.approx(measured.counted_peak, rel=0.1)


def test_a_larger_folder_that_is_cast_takes_more_while_it_loads(larger_folder: Path, tmp_path: Path) -> None:
    """float32 on the disk, computed with in bfloat16."""
    measured = measure(str(larger_folder), tmp_path, "bfloat16")
    assert measured.steady == pytest.approx(measured.counted, rel=0.1)
    assert measured.peak == pytest.approx(measured.counted_peak, rel=0.1)
    assert measured.peak > 1.5 * measured.steady
    assert measured.freed == pytest.approx(measured.counted - TORCH_HEAD_ROOM_BYTES, rel=0.25)

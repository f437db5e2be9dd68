"""Tests for a machine with CUDA: `python -m pytest tests/gpu`. Elsewhere they are skipped, and say why.

`--pretend` runs them on the CPU instead, with the disk as its second device: what they ask of the program is then
tried, and what they ask of a GPU is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_demo.devices import CPU, read_cpu, read_gpus
from llama_demo.engines.transformers import TransformersEngine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pretend", action="store_true", help="run the tests for GPUs on the CPU")


@dataclass(frozen=True)
class Machine:
    """`devices` as torch names them, `budget` as the planner does; the first one is where most tests run."""

    devices: tuple[str, ...]
    pretend: bool

    @property
    def first(self) -> str:
        return self.devices[0]

    @property
    def planned(self) -> str:
        """The first device's name in plans and settings."""
        return CPU if self.pretend else self.first

    @property
    def setting(self) -> str:
        return "cpu" if self.pretend else self.first

    def used_bytes(self) -> int:
        """What torch holds of the first device, freed blocks that it keeps for later aside."""
        return 0 if self.pretend else int(torch.cuda.memory_allocated(self.first))

    def free_bytes(self) -> int:
        return read_cpu().free_bytes if self.pretend else int(torch.cuda.mem_get_info(self.first)[0])

    def second(self) -> str:
        if len(self.devices) < 2:
            pytest.skip(f"one GPU: {torch.cuda.get_device_name(0)}; a split needs two")
        return self.devices[1]

    def needs_quantization(self) -> None:
        if util.find_spec("bitsandbytes") is None:
            pytest.skip("bitsandbytes is not installed: pip install bitsandbytes")


@pytest.fixture(scope="session")
def machine(pytestconfig: pytest.Config) -> Machine:
    if pytestconfig.getoption("--pretend", default=False):
        return Machine(("cpu", "disk"), pretend=True)
    if not torch.cuda.is_available():
        pytest.skip(f"no CUDA device: torch {torch.__version__} sees none, and the driver lists {len(read_gpus())}")
    return Machine(tuple(f"cuda:{number}" for number in range(torch.cuda.device_count())), pretend=False)


Start = Callable[..., TransformersEngine]


@pytest.fixture
def start(machine: Machine, tiny_folder: Path) -> Iterator[Start]:
    """Starts engines on the first device; all are closed at the end, and have then given their memory back."""
    made: list[TransformersEngine] = []
    before = machine.used_bytes()

    def make(folder: Path = tiny_folder, **changes: Any) -> TransformersEngine:
        settings = {"name": "tiny", "eos_ids": (), "context_tokens": 256, "layers": {machine.first: 3}, **changes}
        made.append(TransformersEngine(folder, **settings))
        return made[-1]

    yield make
    for engine in reversed(made):
        engine.close()
    assert machine.used_bytes() <= before + 20 * 2**20

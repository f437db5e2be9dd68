from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, json
from contextlib import ExitStack
from llama_demo.engines.heap import own_pages

class Mallinfo2(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Mallinfo2

def mapped():
    "How many of 20 blocks of 1 MB get pages of their own; they live as long as this process."
    before = library.mallinfo2().hblks
    blocks.extend(bytearray(2**20) for _ in range(20))
    return library.mallinfo2().hblks - before

blocks, large = [], bytearray(30 * 2**20)
del large  # from now on glibc by itself puts what is smaller into its heap
told = [mapped()]
with ExitStack() as first, ExitStack() as second:
    first.enter_context(own_pages())
    second.enter_context(own_pages())
    told.append(mapped())
    first.close()
    told.append(mapped())
    second.close()
    told.append(mapped())
print(json.dumps(told))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc tells it here"
)
def test_large_blocks_have_pages_of_their_own_until_the_last_load_is_over() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.strip() == "[0, 20, 20, 0]"

"""llama.cpp in process, one request at a time: run by the Python of an environment that has llama-cpp-python.

Reads {"model", "prompts" (token ids), "new_tokens", "threads"} as JSON on stdin, writes one measurement a prompt.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    from llama_cpp import Llama

    order = json.load(sys.stdin)
    model = Llama(
        order["model"], n_ctx=2048, n_threads=order["threads"], n_threads_batch=order["threads"], verbose=False
    )
    measured = []
    for prompt in order["prompts"]:
        model.reset()
        times = []
        started = time.perf_counter()
        for _ in model.generate(prompt, top_k=1, temp=0.0):
            times.append(time.perf_counter() - started)
            if len(times) == order["new_tokens"]:
                break
        rate = (len(times) - 1) / (times[-1] - times[0])
        measured.append({"first_seconds": times[0], "decode_rate": rate, "total_rate": len(times) / times[-1]})
    json.dump(measured, sys.stdout)


if __name__ == "__main__":
    main()

"""A random model of 7B's shape on one GPU, with 1 and 16 visitors: this app's engine, transformers' own continuous
batching, and vLLM where it is installed. `python -m benchmarks.gpu FOLDER`.

The model is written into FOLDER once (13.5 GB). Each system runs in a process of its own, one after the other, on the
same prompts, greedily, with no end token; prompts and continuations are token ids, so no tokenizer is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch

from llama_demo.placement import PAGE_TOKENS

SYSTEMS = ("llama-demo", "transformers", "vllm")
SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
}
CROWDS = (1, 16)
VOCABULARY = 32_000
CONTEXT_TOKENS = 2048

Prompts = list[list[int]]
Measure = Callable[[Prompts, int], float]
"""Answers all prompts at once with so many tokens each; returns the seconds."""


def write_model(folder: Path, shape: str, device: str) -> None:
    """Numbers drawn on `device`, saved in bfloat16, as Llama-2's own were trained."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT_TOKENS, **SHAPES[shape])
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(str(folder))


def prompts_for(crowd: int, length: int) -> Prompts:
    """Different ones, so that no kept prefix is of use."""
    random = torch.Generator().manual_seed(crowd)
    return [torch.randint(3, VOCABULARY, (length,), generator=random).tolist() for _ in range(crowd)]


def ours(folder: Path, device: str) -> Measure:
    from llama_demo.engines.transformers import TransformersEngine
    from llama_demo.values import Sampling

    layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    engine = TransformersEngine(
        folder, name="random", eos_ids=(), context_tokens=CONTEXT_TOKENS, layers={device: layers}, dtype="bfloat16"
    )

    def measure(prompts: Prompts, tokens: int) -> float:
        begun = time.perf_counter()
        streams = [engine.generate(prompt, Sampling(tokens, temperature=0.0)) for prompt in prompts]
        made = [sum(1 for _ in stream) for stream in streams]
        seconds = time.perf_counter() - begun
        assert made == [tokens] * len(prompts), made
        return seconds

    return measure


def transformers(folder: Path, device: str) -> Measure:
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16, device_map={"": device}).eval()

    def measure(prompts: Prompts, tokens: int) -> float:
        config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        pages = len(prompts) * (math.ceil((len(prompts[0]) + tokens) / PAGE_TOKENS) + 1)
        # Left to itself it takes most of the memory for its cache, and the time of that would be counted.
        batching = ContinuousBatchingConfig(page_size=PAGE_TOKENS, num_blocks=pages)
        begun = time.perf_counter()
        made = model.generate_batch(prompts, generation_config=config, continuous_batching_config=batching)
        seconds = time.perf_counter() - begun
        assert [len(answer.generated_tokens) for answer in made.values()] == [tokens] * len(prompts)
        return seconds

    return measure


def vllm(folder: Path, device: str) -> Measure:  # noqa: ARG001 - it takes the first GPU
    library = import_module("vllm")
    engine = library.LLM(str(folder), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=CONTEXT_TOKENS)

    def measure(prompts: Prompts, tokens: int) -> float:
        sampling = library.SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        begun = time.perf_counter()
        made = engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        seconds = time.perf_counter() - begun
        assert [len(answer.outputs[0].token_ids) for answer in made] == [tokens] * len(prompts)
        return seconds

    return measure


def run_one(given: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of all visitors together, by crowd: the best of `--repeats`, after a round that is not counted.
    And the most that torch held."""
    starts = {"llama-demo": ours, "transformers": transformers, "vllm": vllm}
    measure = starts[given.system](given.folder, given.device)
    found = {}
    for crowd in CROWDS:
        prompts = prompts_for(crowd, given.prompt)
        measure(prompts, given.tokens)
        seconds = min(measure(prompts, given.tokens) for _ in range(given.repeats))
        found[str(crowd)] = crowd * given.tokens / seconds
    if given.device.startswith("cuda"):
        found["peak_gb"] = torch.cuda.max_memory_allocated(given.device) / 1e9
    return found


def run_all(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    if not (given.folder / "config.json").is_file():
        write_model(given.folder, given.shape, given.device)
    device = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else "CPU"
    print(f"{device}; {given.shape}; {given.prompt} tokens read, {given.tokens} written; tokens a second")
    print(f"{'':<16}" + "".join(f"{crowd:>6} visitors" for crowd in CROWDS) + f"{'peak GB':>10}")
    for system in SYSTEMS:
        if system == "vllm" and util.find_spec("vllm") is None:
            print(f"{system:<16}not installed")
            continue
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments, "--system", system]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{system:<16}failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
            continue
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        rates = "".join(f"{found[str(crowd)]:>15.1f}" for crowd in CROWDS)
        print(f"{system:<16}{rates}{found.get('peak_gb', float('nan')):>10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model is, or is to be written")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each continuation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--system", choices=SYSTEMS, help="run this one alone, and print JSON")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu --shape tiny tries the program itself")
    if given.system:
        print(json.dumps(run_one(given)))
    else:
        run_all(given, sys.argv[1:])


if __name__ == "__main__":
    main()

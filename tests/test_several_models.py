"""Several real models in one registry: more than the budget holds, and one model in three formats side by side."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints.gguf_convert import write_llama
from llama_demo.checkpoints.gguf_source import read_gguf
from llama_demo.checkpoints.gguf_tokenizer import write_tokenizer
from llama_demo.checkpoints.hf_write import write_hf
from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState, Sampling


def write_catalog(file: Path, models: dict[str, Path]) -> str:
    with file.open("w") as catalog:
        for name, path in models.items():
            kind = "gguf" if path.is_file() else "hf"
            catalog.write(f'[[model]]\nname = "{name}"\npath = "{path}"\nformat = "{kind}"\ngood_for = "x"\n')
    return str(file)


def greedy(model: LoadedModel, text: str) -> str:
    ids = model.tokenizer.encode(text)
    tokens = model.engine.generate(ids, Sampling(max_new_tokens=6, temperature=0.0))
    return model.tokenizer.decode([token.id for token in tokens])


def ready(runtime: Runtime) -> set[str]:
    return {name for name, status in runtime.registry.statuses().items() if status.state is ModelState.READY}


def test_three_models_in_a_budget_for_two_are_all_served_and_the_least_recently_used_goes(
    tmp_path: Path, tiny_folder: Path, tiny_sentencepiece_folder: Path
) -> None:
    folders = {"a": tiny_folder, "b": tiny_sentencepiece_folder, "c": tiny_folder}
    catalog = write_catalog(tmp_path / "models.toml", folders)
    settings = Settings(cache_dir=tmp_path, catalog=catalog, model="a", context_tokens=256, memory_gb=0.5)
    with Runtime(settings) as runtime:
        texts = {}
        for name in folders:
            with runtime.registry.lease(name) as model:
                texts[name] = greedy(model, "The harbour")
        assert ready(runtime) == {"b", "c"}
        with runtime.registry.lease("b"), runtime.registry.lease("a"):
            assert ready(runtime) == {"a", "b"}
        assert runtime.memory()[0].used_bytes <= runtime.memory()[0].budget_bytes
        made: list[tuple[str, str]] = []

        def ask(name: str) -> None:
            with runtime.registry.lease(name) as model:
                made.append((name, greedy(model, "The harbour")))

        threads = [threading.Thread(target=ask, args=(name,)) for name in "abcabcabc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(made) == sorted((name, texts[name]) for name in "abcabcabc")


@pytest.mark.slow
def test_the_embedded_model_and_its_conversions_to_two_other_formats_live_side_by_side(
    tmp_path: Path, embedded_gguf: Path
) -> None:
    write_tokenizer(embedded_gguf, tmp_path / "tokenizer")
    source = read_gguf(embedded_gguf, tmp_path / "tokenizer")
    write_hf(source, tmp_path / "folder", dtype="bfloat16")
    write_llama(source, tmp_path / "half.gguf", to="f16")
    catalog = write_catalog(tmp_path / "models.toml", {"folder": tmp_path / "folder", "half": tmp_path / "half.gguf"})
    settings = Settings(cache_dir=tmp_path / "cache", catalog=catalog, context_tokens=256, memory_gb=6.0)
    with Runtime(settings) as runtime:
        listed = {summary.name: summary.format for summary in runtime.models()}
        assert listed == {"folder": "hf", "half": "gguf", EMBEDDED.name: "gguf"}
        for _ in range(2):
            for name in listed:
                with runtime.registry.lease(name) as model:
                    assert "Paris" in greedy(model, "The capital of France is"), name
        assert ready(runtime) == set(listed)
        assert all(summary.state is ModelState.READY for summary in runtime.models())

"""LoRA adapters from the catalog: each writes as PEFT itself does, and all of a base share its weights."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_demo.catalog import read_catalog
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.errors import BadCatalog, BadCheckpoint, InvalidParameter, LoadFailed, Unsupported
from llama_demo.loading import LoadedModel
from llama_demo.messages import messages
from llama_demo.model_errors import WrongBase
from llama_demo.placement import TORCH_LIBRARY_BYTES
from llama_demo.reasons import Reason
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.values import ModelState, Sampling

PROMPT = [1, 40, 77, 120, 55, 301]
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)


def write_adapter(folder: Path, base: Path, seed: int) -> Path:
    """As a user's own training would have saved it."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, tensor in wrapped.named_parameters():
            if "lora_B" in name:
                tensor.normal_(std=0.3)
    wrapped.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: write_adapter(folder / name, tiny_folder, seed) for seed, name in enumerate(("pirate", "poet"))}


def by_peft(base: Path, adapter: Path | None) -> list[int]:
    """What plain transformers and PEFT write."""
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    made = model.generate(
        input_ids=torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=GREEDY.max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return [int(token) for token in made[0, len(PROMPT) :]]


def written(model: LoadedModel) -> list[int]:
    return [token.id for token in model.engine.generate(PROMPT, GREEDY)]


def write_catalog(
    file: Path, base: Path, adapters: dict[str, Path], base_name: str = "base", visitors: str = ""
) -> str:
    """`visitors` is the one model that they may choose, where it is given."""
    entries = [f'visitors = ["{visitors}"]\n'] if visitors else []
    entries += [f'[[model]]\nname = "base"\npath = "{base}"\nformat = "hf"\ngood_for = "x"\n']
    for name, folder in adapters.items():
        entries.append(f'[[model]]\nname = "{name}"\nbase = "{base_name}"\nadapter = "{folder}"\ngood_for = "x"\n')
    file.write_text("\n".join(entries))
    return str(file)


def test_adapters_write_as_peft_does_side_by_side_on_one_base(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    catalog = write_catalog(tmp_path / "models.toml", tiny_folder, adapters)
    wanted = {name: by_peft(tiny_folder, adapters.get(name)) for name in ("base", *adapters)}
    assert len({tuple(ids) for ids in wanted.values()}) == 3
    settings = Settings(cache_dir=tmp_path, catalog=catalog, context_tokens=256, memory_gb=2.0, reproducible=True)
    with Runtime(settings) as runtime:
        registry, made = runtime.registry, list[tuple[str, bool]]()
        convertible = {model.name for model in runtime.models(everything=True) if model.can_convert}
        assert convertible == {"base"}
        with pytest.raises(InvalidParameter):
            runtime.management.convert("poet")

        def ask(name: str) -> None:
            with registry.lease(name) as model:
                made.append((name, written(model) == without_ends(model, wanted[name])))

        threads = [threading.Thread(target=ask, args=(name,)) for name in (*wanted, *wanted)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(made) == sorted((name, True) for name in (*wanted, *wanted))
        assert all(registry.status(name).state is ModelState.READY for name in wanted)
        with registry.lease("base") as base, registry.lease("poet") as poet:
            assert isinstance(base.engine, TransformersEngine)
            assert isinstance(poet.engine, TransformersEngine)
            shared = {tensor.data_ptr() for tensor in base.engine._model.parameters()}
            own = [tensor for tensor in poet.engine._model.parameters() if tensor.data_ptr() not in shared]
            assert len(own) == 2 * 2 * 3
            assert registry.status("poet").bytes < registry.status("base").bytes


def without_ends(model: LoadedModel, ids: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in model.tokenizer.eos_ids]
    return ids[: ends[0]] if ends else ids


def test_a_base_stays_while_an_adapter_is_in_memory_and_goes_after_it(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    catalog = write_catalog(tmp_path / "models.toml", tiny_folder, adapters)
    with Runtime(Settings(cache_dir=tmp_path, catalog=catalog, context_tokens=256, memory_gb=2.0)) as runtime:
        registry = runtime.registry
        with registry.lease("pirate"):
            registry.unload("base")
            assert registry.status("base").state is ModelState.DRAINING
        registry.unload("pirate")
        while registry.statuses():
            threading.Event().wait(0.01)
        assert registry.used_bytes("CPU") == registry.kept_bytes("CPU") == TORCH_LIBRARY_BYTES


def refused(tmp_path: Path, base: Path, adapter: Path) -> BaseException:
    catalog = write_catalog(tmp_path / "models.toml", base, {"wrong": adapter})
    settings = Settings(cache_dir=tmp_path, catalog=catalog, context_tokens=256, memory_gb=2.0)
    with Runtime(settings) as runtime:
        with pytest.raises(LoadFailed) as caught, runtime.registry.lease("wrong"):
            pass
        assert "wrong" in runtime.messages().error(caught.value)
        with runtime.registry.lease("base") as model:
            assert written(model)
    return caught.value.cause


def test_an_adapter_of_another_base_is_refused_and_the_base_goes_on(
    tmp_path: Path, tiny_sentencepiece_folder: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    narrow = tmp_path / "narrow"
    shutil.copytree(tiny_folder, narrow)
    config = LlamaConfig.from_pretrained(str(tiny_folder), hidden_size=64, num_attention_heads=2, num_hidden_layers=1)
    LlamaForCausalLM(config).save_pretrained(str(narrow))
    cause = refused(tmp_path, narrow, adapters["poet"])
    assert isinstance(cause, WrongBase)
    assert "base in the catalog" in messages().error(cause)
    shallow = tmp_path / "shallow"
    shutil.copytree(tiny_folder, shallow)
    config = LlamaConfig.from_pretrained(str(tiny_folder), num_hidden_layers=2)
    LlamaForCausalLM(config).save_pretrained(str(shallow))
    assert isinstance(refused(tmp_path, shallow, adapters["poet"]), WrongBase)


def test_an_adapter_that_lacks_a_tensor_is_refused(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapters["poet"], tmp_path / "part")
    file = tmp_path / "part" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.popitem()
    save_file(tensors, file)
    cause = refused(tmp_path, tiny_folder, tmp_path / "part")
    assert isinstance(cause, BadCheckpoint)
    assert cause.problem.key == "checkpoint.lacks"


def test_what_is_no_lora_adapter_is_refused_before_anything_is_loaded(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    shutil.copytree(adapters["poet"], tmp_path / "other")
    config = tmp_path / "other" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "IA3"}))
    catalog = write_catalog(tmp_path / "models.toml", tiny_folder, {"other": tmp_path / "other"})
    with (
        Runtime(Settings(cache_dir=tmp_path, catalog=catalog)) as runtime,
        pytest.raises(BadCheckpoint) as caught,
    ):
        runtime.registry.request("other")
    assert caught.value.problem == Reason("checkpoint.adapter_kind", kind="IA3")


def test_an_adapter_on_a_model_that_runs_through_openvino_says_what_would_help(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    catalog = write_catalog(tmp_path / "models.toml", tiny_folder, adapters, base_name="tinyllama-1.1b-chat")
    with Runtime(Settings(cache_dir=tmp_path, catalog=catalog, device="cpu", memory_gb=8.0)) as runtime:
        with pytest.raises(Unsupported) as caught:
            runtime.registry.request("poet")
        assert caught.value.model == "tinyllama-1.1b-chat"


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ('adapter = "ADAPTER"\n', "base"),
        ('base = "base"\n', "adapter"),
        ('base = "nobody"\nadapter = "ADAPTER"\n', "base"),
        ('base = "smollm2-135m-instruct"\nadapter = "ADAPTER"\n', "base"),
        ('base = "base"\nadapter = "no/such/folder"\n', "adapter"),
        ('base = "base"\nadapter = "ADAPTER"\nformat = "hf"\n', "format"),
        ('base = "base"\nadapter = "somebody/lora"\n', "parameters"),
    ],
)
def test_an_adapters_entry_with_a_mistake_is_named(
    entry: str, field: str, tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    file = tmp_path / "models.toml"
    write_catalog(file, tiny_folder, {})
    text = entry.replace("ADAPTER", str(adapters["poet"]))
    file.write_text(f'{file.read_text()}\n[[model]]\nname = "mine"\ngood_for = "x"\n{text}')
    with pytest.raises(BadCatalog) as caught:
        read_catalog("", file)
    assert caught.value.field == field
    lines = file.read_text().splitlines()
    named = [number for number, line in enumerate(lines, start=1) if line.startswith(f"{field} =")]
    assert caught.value.line == (named[-1] if named else lines.index('name = "mine"'))


def test_who_may_choose_an_adapter_gets_its_base_too(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    file = Path(write_catalog(tmp_path / "models.toml", tiny_folder, adapters, visitors="poet"))
    catalog, default = read_catalog("poet", file)
    assert {entry.name for entry in catalog.for_visitors(default).entries} == {"poet", "base"}


def test_an_adapter_that_the_owner_loads_is_offered_with_its_base(
    tmp_path: Path, tiny_folder: Path, adapters: dict[str, Path]
) -> None:
    catalog = write_catalog(tmp_path / "models.toml", tiny_folder, adapters, visitors="smollm2-135m-instruct")
    settings = Settings(
        cache_dir=tmp_path, catalog=catalog, model="smollm2-135m-instruct", context_tokens=256, memory_gb=2.0
    )
    with Runtime(settings) as runtime:
        runtime.management.load("poet")
        assert [entry.name for entry in runtime.catalog.entries] == ["base", "poet", "smollm2-135m-instruct"]
        with runtime.registry.lease("poet") as model:
            assert written(model)

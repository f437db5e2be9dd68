"""A LoRA adapter with a saved head, in PEFT's format, merged into its base: from then on a classifier like any other.

peft fills a head that is not in the file with random numbers, and leaves out what does not fit the base; here both are
refused.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from llama_demo import hub
from llama_demo.checkpoints.adapter import CONFIG, WEIGHTS, read_adapter
from llama_demo.checkpoints.llama import float_slices
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.checkpoints.whole import replacing_folder
from llama_demo.entry_files import HUB_FILES, read_config
from llama_demo.errors import BadCheckpoint, BadHead, UntrainedHead, WrongBackbone

_PREFIX = "base_model.model."
_SCORE = f"{_PREFIX}score.weight"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def merged(folder: Path, cache_dir: Path) -> Path:
    """The folder of the adapter merged into its base, which is made in the cache once. Blocks; the whole base is in
    memory while it is made.

    Raises `UntrainedHead` where the head is not in the file, `BadHead`, `WrongBackbone`, `BadCheckpoint`, `DiskFull`,
    and as `hub.download` where the base is a repository.
    """
    config = _checked(folder)
    title, facts = str(folder), [(folder / name).stat() for name in (CONFIG, WEIGHTS)]
    stamp = "|".join([str(folder.resolve()), *(f"{each.st_size} {each.st_mtime_ns}" for each in facts)])
    made = cache_dir / "models" / f"adapter-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}" / folder.resolve().name
    if made.is_dir():
        return made
    base = _base(folder, config)
    rows, width = read_tensors(folder)[_SCORE].shape
    hidden = int(read_config(base)["hidden_size"])
    if width != hidden:
        raise WrongBackbone(title, f"its head reads {width} numbers, and the features of {base.name} have {hidden}")
    needed = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    with replacing_folder(made, needed) as target:
        _merge(folder, base, rows).save_pretrained(str(target))
        for source in (base, folder):
            for name in _TOKENIZER:
                if (source / name).is_file():
                    shutil.copyfile(source / name, target / name)
    return made


def _checked(folder: Path) -> dict[str, Any]:
    title = str(folder)
    try:
        config = read_adapter(folder)
    except BadCheckpoint as error:
        raise BadHead(title, error.problem) from None
    tensors = read_tensors(folder)
    if _SCORE not in tensors:
        raise UntrainedHead(title, "the head was not saved with the adapter: its modules_to_save must name score")
    if len(tensors[_SCORE].shape) != 2:
        raise BadHead(title, "its score.weight is no matrix")
    return config


def _base(folder: Path, config: dict[str, Any]) -> Path:
    """The folder of the base: beside the adapter, on this machine, or of a repository."""
    named = str(config.get("base_model_name_or_path") or "")
    for place in (folder / named, Path(named).expanduser()):
        if named and (place / "config.json").is_file():
            return place
    if not named or named.count("/") != 1 or named.startswith((".", "/", "~")):
        raise BadHead(str(folder), f"its base model, {named or 'which it does not name'}, is not on this machine")
    return hub.download(named, HUB_FILES, lambda _, __: None, revision=str(config.get("revision") or ""))


def _merge(folder: Path, base: Path, labels: int) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    wanted = read_tensors(folder)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            str(base), num_labels=labels, dtype="auto", local_files_only=True
        )
        model = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadHead(str(folder), f"it does not fit its base: {(str(error) or repr(error)).splitlines()[0]}") from None
    placed = set(get_peft_model_state_dict(model))
    if lost := sorted(wanted.keys() - placed):
        raise WrongBackbone(str(folder), f"{base.name} has no place for {', '.join(lost[:3])}")
    if absent := sorted(placed - wanted.keys()):
        raise BadHead(str(folder), f"it lacks {', '.join(absent[:3])}")
    model = model.merge_and_unload()
    saved = np.concatenate(list(float_slices(wanted[_SCORE])))
    kept = model.score.weight.detach().float().numpy()
    if not np.allclose(kept, saved, rtol=1e-2, atol=1e-6):
        raise UntrainedHead(str(folder), "its head did not reach the model")
    return model

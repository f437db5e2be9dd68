"""A LoRA adapter on a model that is in memory already: a second model that shares the first one's weights.

It knows modules and PEFT's format, and nothing of requests.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from llama_demo.checkpoints.adapter import HEAD, classifies
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.errors import BadCheckpoint
from llama_demo.model_errors import WrongBase
from llama_demo.reasons import Reason

_HEADS = ("score", "classifier")
"""What PEFT calls a classifier's head."""


def adapted(base: Any, folder: Path, *, name: str, base_name: str) -> tuple[Any, bool]:
    """A model like `base` with the adapter in `folder` on top, and whether it writes text: one that was trained to
    classify does not. All weights but the adapter's are the very same tensors, and `base` itself stays as it was. A
    classifier's head is none of the model's: it is read apart.

    Raises `BadCheckpoint` for what is no LoRA adapter, `WrongBase` for one that does not fit.
    """
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict

    writes = not classifies(folder)
    shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    twin = copy.deepcopy(base, shared)
    try:
        config = LoraConfig.from_pretrained(str(folder))
        if not writes:
            config.task_type = None
            config.modules_to_save = [part for part in config.modules_to_save or () if part not in _HEADS] or None
        wrapped = PeftModel.from_pretrained(twin, str(folder), config=config, autocast_adapter_dtype=False)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WrongBase(name, base_name, (str(error) or repr(error)).splitlines()[-1].strip()) from None
    placed, stored = set(get_peft_model_state_dict(wrapped)), read_tensors(folder).keys() - {HEAD}
    if lost := sorted(stored - placed):
        raise WrongBase(name, base_name, f"it has no place for {', '.join(lost[:3])}")
    if absent := sorted(placed - stored):
        # The library fills these with numbers of its own.
        raise BadCheckpoint(str(folder), Reason("checkpoint.lacks", names=", ".join(absent[:3])))
    return twin.eval(), writes

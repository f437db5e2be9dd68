"""A LoRA adapter on a model that is in memory already: a second model that shares the first one's weights.

It knows modules and PEFT's format, and nothing of requests.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from llama_demo.checkpoints.adapter import read_adapter
from llama_demo.checkpoints.safetensors_read import read_tensors
from llama_demo.errors import BadCheckpoint
from llama_demo.model_errors import WrongBase


def adapted(base: Any, folder: Path, *, name: str, base_name: str) -> Any:
    """A model like `base` with the adapter in `folder` on top: all weights but the adapter's are the very same tensors,
    and `base` itself stays as it was.

    Raises `BadCheckpoint` for what is no LoRA adapter, `WrongBase` for one that does not fit.
    """
    from peft import PeftModel, get_peft_model_state_dict

    read_adapter(folder)
    shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    twin = copy.deepcopy(base, shared)
    try:
        wrapped = PeftModel.from_pretrained(twin, str(folder), autocast_adapter_dtype=False)
    except (ValueError, KeyError, RuntimeError) as error:
        raise WrongBase(name, base_name, (str(error) or repr(error)).splitlines()[-1].strip()) from None
    placed, stored = set(get_peft_model_state_dict(wrapped)), read_tensors(folder).keys()
    if lost := sorted(stored - placed):
        raise WrongBase(name, base_name, f"it has no place for {', '.join(lost[:3])}")
    if absent := sorted(placed - stored):
        # The library fills these with numbers of its own.
        raise BadCheckpoint(str(folder), f"it lacks {', '.join(absent[:3])}")
    return twin.eval()

"""How an entry can run on this machine, best way first, before anything is downloaded.

It puts the settings and the devices' budgets to the arithmetic of `placement_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile

from llama_demo.catalog import Entry
from llama_demo.checkpoints.gguf_write import Quantization
from llama_demo.devices import CPU, Device
from llama_demo.entry_files import is_converted, read_config, read_model
from llama_demo.placement import FAST_CACHE_BYTES, Form, Model, cpu_form, gpu_form
from llama_demo.placement_plan import Plan, plan, plans
from llama_demo.settings import Settings

CONVERTED_TO: tuple[Quantization, ...] = ("q8_0", "q4_0")
_ITEM_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}


class Planner:
    """`budgets` are the bytes that models may take of each device; with `quantizes` a GPU may hold 8 and 4 bits."""

    def __init__(self, settings: Settings, budgets: Mapping[str, int], *, quantizes: bool) -> None:
        self._settings, self._quantizes = settings, quantizes
        self._devices = [Device(name, budget, budget) for name, budget in budgets.items()]
        self._has_gpu = any(name != CPU for name in budgets)
        self._models: dict[str, Model] = {}

    def best(self, entry: Entry) -> Plan:
        """The best way to run `entry` here. Raises `DoesNotFit`, and `BadCheckpoint` for files that cannot be read."""
        return plan(entry.name, self._forms(entry), self._devices, **self._asked)

    def ways(self, entry: Entry) -> list[Plan]:
        """All ways that fit, best first; none is no error. Raises `BadCheckpoint`."""
        return list(plans(self._forms(entry), self._devices, **self._asked))

    def as_good(self, entry: Entry) -> list[Plan]:
        """The best way on each of the devices that do equally well. Raises as `best`."""
        best, ways = self.best(entry), iter(self.ways(entry))
        return list(takewhile(lambda way: (way.way, way.precision) == (best.way, best.precision), ways))

    def model(self, entry: Entry) -> Model:
        """Raises `BadCheckpoint` for files that cannot be read."""
        if entry.name not in self._models:
            self._models[entry.name] = read_model(entry, reproducible=self._settings.reproducible)
        return self._models[entry.name]

    def smallest(self, entry: Entry, *, on_gpu: bool) -> Form:
        """The form that needs least on such a device. Raises `BadCheckpoint`."""
        forms = [form for form in self._forms(entry) if form.on_gpu == on_gpu]
        return min(forms, key=lambda form: form.weight_bytes)

    @property
    def _asked(self) -> dict[str, int]:
        settings = self._settings
        return {"context_tokens": settings.context_tokens, "visitors": settings.cached_conversations}

    def _forms(self, entry: Entry) -> list[Form]:
        """Better ones first. A named GPU is the only place for what can run there; `auto` falls back to the CPU."""
        model = self.model(entry)
        gpu = [gpu_form(model, kind) for kind in self._precisions()] if self._can_use_gpu(entry) else []
        return gpu if gpu and self._settings.device != "auto" else [*gpu, *self._cpu_forms(entry, model)]

    def _can_use_gpu(self, entry: Entry) -> bool:
        return self._has_gpu and entry.format in ("hf", "meta")

    def _precisions(self) -> tuple[str, ...]:
        dtype = self._settings.dtype
        if self._settings.reproducible or dtype == "float32":
            return ("32-bit",)
        if dtype == "auto":
            return ("16-bit", "8-bit", "4-bit") if self._quantizes else ("16-bit",)
        return (dtype if dtype.endswith("-bit") else "16-bit",)

    def _cpu_forms(self, entry: Entry, model: Model) -> list[Form]:
        each = 4.0 if self._settings.reproducible else FAST_CACHE_BYTES
        if is_converted(entry):
            return [cpu_form(model, "openvino", kind, each) for kind in CONVERTED_TO]
        if entry.format == "gguf":
            return [cpu_form(model, "openvino", entry.quantization or "gguf", each)]
        return [self._folder_form(entry, model)]

    def _folder_form(self, entry: Entry, model: Model) -> Form:
        """For transformers on the CPU, which has no 8 or 4 bits."""
        dtype = "float32" if self._settings.reproducible else self._settings.dtype
        config = read_config(entry.path) if entry.path is not None else {}
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        if dtype not in _ITEM_BYTES:
            dtype = "bfloat16" if stored == "float16" else stored  # as the engine has it on a CPU
        each = _ITEM_BYTES.get(dtype, 4.0)
        held = replace(model, held_bytes=int(model.parameters * each))
        form = cpu_form(held, "batching", f"{int(each * 8)}-bit", each)
        is_cast = stored != dtype
        return replace(form, read_bytes=int(model.parameters * _ITEM_BYTES.get(stored, 4.0)) if is_cast else 0)

"""`pretraining_tp`: the matrices of a Llama multiplied in slices, as its tensor-parallel training did.

transformers keeps the setting and ignores it. A sum of slices rounds otherwise than the whole: closer to the training,
at the price of as many more, smaller multiplications.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

_BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_BY_COLUMNS = ("o_proj", "down_proj")


class _Sliced(nn.Module):
    """Holds the very weight of the matrix that it stands for."""

    def __init__(self, whole: nn.Linear, slices: int) -> None:
        super().__init__()
        self.weight, self.bias, self.slices = whole.weight, whole.bias, slices


class ByRows(_Sliced):
    """Each slice gives a part of the output."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        parts = [linear(hidden, rows) for rows in self.weight.chunk(self.slices, dim=0)]
        whole = torch.cat(parts, dim=-1)
        return whole if self.bias is None else whole + self.bias


class ByColumns(_Sliced):
    """Each slice reads a part of the input; what they give is added up in their order."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inputs, weights = hidden.chunk(self.slices, dim=-1), self.weight.chunk(self.slices, dim=1)
        whole = linear(inputs[0], weights[0])
        for part, columns in zip(inputs[1:], weights[1:], strict=True):
            whole = whole + linear(part, columns)
        return whole if self.bias is None else whole + self.bias


def slice_model(model: Any, slices: int) -> None:
    """Puts slices in the place of every matrix of the layers and of the head, sharing their weights.

    Raises `ValueError` where a matrix has no so many equal slices.
    """
    for layer in model.base_model.layers:
        for part in (layer.self_attn, layer.mlp):
            for kind, names, side in ((ByRows, _BY_ROWS, 0), (ByColumns, _BY_COLUMNS, 1)):
                for name in names:
                    if hasattr(part, name):
                        setattr(part, name, _sliced(getattr(part, name), kind, slices, side))
    if (head := model.get_output_embeddings()) is not None:
        model.set_output_embeddings(_sliced(head, ByRows, slices, 0))


def _sliced(whole: nn.Linear, kind: type[_Sliced], slices: int, side: int) -> _Sliced:
    if whole.weight.shape[side] % slices:
        raise ValueError(f"a matrix of {tuple(whole.weight.shape)} has no {slices} equal slices")
    return kind(whole, slices)

"""Turns one step's logits into one token a request: each row by its own settings and its own random numbers.

It knows tensors and settings, and nothing of models, threads or streams.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llama_demo.values import Sampling, Token


class Sampler:
    """One request's settings, random numbers, and the ids that its penalties count."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed)
        self._counted = set(prompt) if sampling.repetition_penalty != 1.0 else set()
        self._seen: torch.Tensor | None = None
        self.written: Counter[int] = Counter()
        """How often each id has been drawn."""

    @property
    def takes_best(self) -> bool:
        """Nothing is left to chance."""
        return self.sampling.greedy or self.sampling.top_k == 1

    @property
    def penalises(self) -> bool:
        sampling = self.sampling
        return (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != (1.0, 0.0, 0.0)

    def seen(self, logits: torch.Tensor) -> torch.Tensor:
        """The ids of the prompt and the text so far, bool [vocabulary], on the device of `logits`."""
        if self._seen is None:
            self._seen = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            self._seen[torch.tensor(sorted(self._counted), dtype=torch.long, device=logits.device)] = True
        return self._seen

    def note(self, chosen: int) -> None:
        self.written[chosen] += 1
        if self._seen is not None:
            self._seen[chosen] = True

    def draw(self, logits: NDArray[np.float64], ids: NDArray[np.int64]) -> int:
        """Draws from the candidates `ids`, likeliest first: temperature, top-p (Holtzman et al. 2020), min-p.

        The lot falls on the candidates in the order of their ids: so two that are all but equally likely may change
        places, as they do when rounding differs with the company in a batch, without changing the text.
        """
        with np.errstate(all="ignore"):
            weights = np.exp((logits - logits[0]) / self.sampling.temperature)
            chances = weights / weights.sum()
            kept = chances.cumsum() - chances < self.sampling.top_p
            kept &= chances >= self.sampling.min_p * chances[0]
        kept[0] = True
        order = ids[kept].argsort()
        reached = chances[kept][order].cumsum()
        place = int(np.searchsorted(reached, self._random.random() * reached[-1], side="right"))
        return int(ids[kept][order][min(place, len(order) - 1)])


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Token]:
    """The next token of each request from its row of `logits`, float32 [requests, vocabulary].

    A token's logprob is the model's own, before temperature, penalty and cuts. It is not finite where the row is not.
    """
    totals = logits.logsumexp(-1)
    adjusted = _penalised(logits, samplers)
    ids = adjusted.argmax(-1).tolist()
    vocabulary = logits.shape[-1]
    hot = [row for row, sampler in enumerate(samplers) if not sampler.takes_best]
    cut = [row for row in hot if 0 < samplers[row].sampling.top_k < vocabulary]
    for rows in (cut, [row for row in hot if row not in cut]):
        for row, chosen in _drawn(adjusted, samplers, rows):
            ids[row] = chosen
    for sampler, chosen in zip(samplers, ids, strict=True):
        sampler.note(chosen)
    picked = logits[torch.arange(len(ids), device=logits.device), torch.tensor(ids, device=logits.device)]
    return [Token(chosen, logprob) for chosen, logprob in zip(ids, (picked - totals).tolist(), strict=True)]


def _drawn(adjusted: torch.Tensor, samplers: Sequence[Sampler], rows: list[int]) -> Iterable[tuple[int, int]]:
    """(row, id) for each of `rows`: all with a `top_k` that cuts, or all without. One copy from the device for all."""
    if not rows:
        return
    widths = [samplers[row].sampling.top_k or adjusted.shape[-1] for row in rows]
    widest = min(max(widths), adjusted.shape[-1])
    part = adjusted[rows]
    values, ids = part.topk(widest) if widest < part.shape[-1] else part.sort(descending=True)
    candidates, names = values.double().cpu().numpy(), ids.cpu().numpy()
    for place, (row, width) in enumerate(zip(rows, widths, strict=True)):
        yield row, samplers[row].draw(candidates[place, :width], names[place, :width])


def _penalised(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Repetition penalty as in CTRL (Keskar et al. 2019): positive logits of seen ids divided, others multiplied. Then
    presence and frequency penalties, taken from the logits of the ids that were drawn already."""
    rows = [row for row, sampler in enumerate(samplers) if sampler.penalises]
    if not rows:
        return logits
    part = logits[rows]
    penalty = torch.tensor([[samplers[row].sampling.repetition_penalty] for row in rows], device=logits.device)
    seen = torch.stack([samplers[row].seen(logits) for row in rows])
    adjusted = logits.clone()
    adjusted[rows] = torch.where(seen, torch.where(part > 0, part / penalty, part * penalty), part)
    for row in rows:
        sampling, written = samplers[row].sampling, samplers[row].written
        if written and (sampling.presence_penalty or sampling.frequency_penalty):
            taken = [sampling.presence_penalty + sampling.frequency_penalty * times for times in written.values()]
            adjusted[row, list(written)] -= torch.tensor(taken, device=logits.device)
    return adjusted

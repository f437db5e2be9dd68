"""Scores and features by plain forward passes, in slices that bound the memory and let others have their turn.

It knows a transformers causal model, and nothing of requests or batching.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llama_demo.values import Scores

SLICE_TOKENS = 256
LOGITS_BYTES = 64 * 2**20
"""At most so much is spent on float32 logits at once, whatever the vocabulary."""
BATCH_TOKENS = 4096
"""Texts are embedded together as long as they, padded, have at most so many tokens."""

Turn = Callable[[], AbstractContextManager[Any]]
"""Entered for each slice; gives the model for as long as nobody else runs it."""


def score(turn: Turn, ids: Sequence[int], top_k: int) -> Scores:
    """Teacher-forced log-probabilities, ranks, entropies and alternatives of all `ids`, as `Scores` says."""
    from transformers import DynamicCache

    count = len(ids)
    scores = Scores(
        logprobs=np.full(count, np.nan, np.float32),
        ranks=np.zeros(count, np.int32),
        entropies=np.full(count, np.nan, np.float32),
        top_ids=np.full((count, top_k), -1, np.int32),
        top_logprobs=np.full((count, top_k), np.nan, np.float32),
    )
    cache = DynamicCache()
    for start in range(0, count - 1, SLICE_TOKENS):
        part = ids[start : min(start + SLICE_TOKENS, count - 1)]
        with turn() as model, torch.no_grad():
            tokens = torch.tensor([list(part)], device=model.device)
            hidden = model.base_model(tokens, past_key_values=cache, use_cache=True).last_hidden_state[0]
            _judge(model.get_output_embeddings(), hidden, ids, start, scores)
    return scores


def _judge(head: Any, hidden: torch.Tensor, ids: Sequence[int], start: int, scores: Scores) -> None:
    """Fills in what the model, having read up to `start + i`, thought of token `start + i + 1`."""
    rows = max(1, LOGITS_BYTES // (4 * head.weight.shape[0]))
    for first in range(0, len(hidden), rows):
        logprobs = head(hidden[first : first + rows]).float().log_softmax(-1)
        low = start + first + 1
        given = slice(low, low + len(logprobs))
        own = logprobs.gather(1, torch.tensor(ids[given], device=logprobs.device)[:, None])
        best = logprobs.topk(scores.top_ids.shape[1])
        scores.logprobs[given] = own[:, 0].cpu().numpy()
        scores.ranks[given] = 1 + (logprobs > own).sum(-1).cpu().numpy()
        scores.entropies[given] = -(logprobs.exp() * logprobs).sum(-1).cpu().numpy()
        scores.top_ids[given] = best.indices.cpu().numpy()
        scores.top_logprobs[given] = best.values.cpu().numpy()


def score_endings(
    turn: Turn, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """See `Engine.score_endings`. Prompts of like length are read together, then each ending's tokens but the last go
    on from a copy of what was kept of them; padding stands between the two, masked."""
    longest = max(map(len, endings))
    logprobs = np.full((len(prompts), len(endings), longest), np.nan, np.float32)
    firsts = [ending[0] for ending in endings]
    longer = [place for place, ending in enumerate(endings) if len(ending) > 1]
    for group in _groups([len(prompt) + longest for prompt in prompts]):
        width = max(len(prompts[place]) for place in group)
        padded = [[*prompts[place], *[0] * (width - len(prompts[place]))] for place in group]
        lengths = torch.tensor([len(prompts[place]) for place in group])
        with turn() as model, torch.no_grad():
            read = model.base_model(torch.tensor(padded, device=model.device), use_cache=bool(longer))
            head, rows = model.get_output_embeddings(), torch.arange(len(group))
            first = head(read.last_hidden_state[rows, lengths - 1]).float().log_softmax(-1)
            logprobs[group, :, 0] = first[:, firsts].cpu().numpy()
            for some in _some(longer, len(group), width + longest):
                found = _go_on(model, read.past_key_values, lengths, [endings[place] for place in some])
                logprobs[np.ix_(group, some, range(1, 1 + found.shape[2]))] = found
    return logprobs


def _some(places: Sequence[int], times: int, tokens: int) -> list[Sequence[int]]:
    """`places`, as many at once as stay within `BATCH_TOKENS` when each takes `tokens` so many `times`."""
    count = max(1, BATCH_TOKENS // (times * tokens))
    return [places[start : start + count] for start in range(0, len(places), count)]


def _go_on(model: Any, kept: Any, lengths: torch.Tensor, endings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Log-probabilities of the endings' tokens but the first, [len(lengths), len(endings), longest - 1], after each of
    the texts in the cache `kept`, which stays as it is."""
    texts, count, longest = len(lengths), len(endings), max(map(len, endings))
    cache = copy.deepcopy(kept)
    cache.batch_repeat_interleave(count)
    width = cache.get_seq_length()
    fed = torch.tensor([[*ending[:-1], *[0] * (longest - len(ending))] for ending in endings] * texts)
    wanted = torch.tensor([[*ending[1:], *[0] * (longest - len(ending))] for ending in endings] * texts)
    begins = lengths.repeat_interleave(count)
    seen = torch.cat([torch.arange(width)[None] < begins[:, None], torch.ones_like(fed, dtype=torch.bool)], dim=1)
    hidden = model.base_model(
        fed.to(model.device),
        attention_mask=seen.long().to(model.device),
        position_ids=(begins[:, None] + torch.arange(longest - 1)).to(model.device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    head, found = model.get_output_embeddings(), torch.empty(wanted.shape)
    for position in range(longest - 1):
        scores = head(hidden[:, position]).float().log_softmax(-1).cpu()
        found[:, position] = scores.gather(1, wanted[:, position, None])[:, 0]
    ends = torch.tensor([len(ending) - 1 for ending in endings] * texts)
    found[torch.arange(longest - 1)[None] >= ends[:, None]] = torch.nan
    return found.reshape(texts, count, longest - 1).numpy()


def embed(turn: Turn, batch: Sequence[Sequence[int]], hidden_size: int) -> NDArray[np.float32]:
    """The last token's last hidden state (after the final norm) of each text, float32 [len(batch), hidden_size].

    Padding stands on the right, where no token of the text can see it, so any id will do for it and no mask is needed.
    """
    features = np.empty((len(batch), hidden_size), np.float32)
    for group in _groups([len(text) for text in batch]):
        width = max(len(batch[place]) for place in group)
        padded = [[*batch[place], *[0] * (width - len(batch[place]))] for place in group]
        lasts = [len(batch[place]) - 1 for place in group]
        with turn() as model, torch.no_grad():
            hidden = model.base_model(torch.tensor(padded, device=model.device), use_cache=False).last_hidden_state
            features[group] = hidden[torch.arange(len(group)), lasts].float().cpu().numpy()
    return features


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Places in `lengths`, the shortest first, in groups of at most `BATCH_TOKENS` tokens once padded."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if groups and lengths[place] * (len(groups[-1]) + 1) <= BATCH_TOKENS:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups

"""What a model thinks of given tokens, as people can read it. Its calls block; it knows no line and no loop."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_demo import prompts
from llama_demo.detokenize import PieceStream
from llama_demo.errors import InvalidHistory, InvalidParameter
from llama_demo.generation.completion import check_ids
from llama_demo.limits import Limits
from llama_demo.loading import LoadedModel
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import ScoredText, ScoredToken, Scores, TokenAlternative, Turn, check_text, token_ids

MAX_TOP_K = 100

Source = str | tuple[int, ...] | tuple[Turn, ...]


def check_top_k(top_k: object) -> int:
    """Raises `InvalidParameter`."""
    if isinstance(top_k, bool) or not isinstance(top_k, (int, float)) or top_k not in range(MAX_TOP_K + 1):
        raise InvalidParameter("top_k", top_k, Reason("expected.whole_number", low=0, high=MAX_TOP_K))
    return int(top_k)


def check_source(source: object, limits: Limits) -> Source:
    """`source` as it can be scored. Raises `InvalidInput`."""
    if isinstance(source, str):
        check_text(source)
        limits.check_characters(len(source))
        return source
    turns = tuple(turn for turn in source if isinstance(turn, Turn)) if isinstance(source, Sequence) else ()
    if not turns:
        return token_ids("text", source, Reason("expected.text_ids_or_turns"))
    if turns[-1].role != "assistant":
        raise InvalidHistory(len(turns) - 1, Reason("history.last"))
    limits.check(turns)
    return turns


def score(loaded: LoadedModel, source: Source, top_k: int) -> ScoredText:
    """Blocks while the model reads. Raises `PromptTooLong`, `InvalidParameter`, and what the engine raises."""
    ids = _ids(loaded, source)
    scores = loaded.engine.score(ids, top_k)
    logprobs = scores.logprobs[1:].tolist()
    perplexity = math.exp(-math.fsum(logprobs) / len(logprobs)) if logprobs else None
    return ScoredText(loaded.entry.name, tuple(_tokens(loaded.tokenizer, ids, scores)), perplexity)


def _ids(loaded: LoadedModel, source: Source) -> Sequence[int]:
    tokenizer = loaded.tokenizer
    if isinstance(source, str):
        return tokenizer.encode_text(source)
    if turns := [turn for turn in source if isinstance(turn, Turn)]:

        def render(turns: Sequence[Turn]) -> Sequence[int]:
            return prompts.render(tokenizer, turns, continue_last=True).ids

        return render(prompts.fit(turns, loaded.engine.context_tokens, lambda kept: len(render(kept)))[0])
    ids = [number for number in source if isinstance(number, int)]
    check_ids(tokenizer, ids)
    return ids or tokenizer.encode_text("")


def _tokens(tokenizer: Tokenizer, ids: Sequence[int], scores: Scores) -> list[ScoredToken]:
    pieces = PieceStream(tokenizer)
    names: dict[int, tuple[str, bytes]] = {}

    def name(number: int) -> tuple[str, bytes]:
        if number not in names:
            names[number] = tokenizer.token_name(number), tokenizer.token_bytes(number)
        return names[number]

    columns = zip(
        ids,
        scores.logprobs.tolist(),
        scores.ranks.tolist(),
        scores.entropies.tolist(),
        scores.top_ids.tolist(),
        scores.top_logprobs.tolist(),
        strict=True,
    )
    tokens = []
    for index, (number, logprob, rank, entropy, top_ids, top_logprobs) in enumerate(columns):
        text = pieces.add([number])
        token, raw = name(number)
        if index == 0:
            tokens.append(ScoredToken(number, token, text, None, None, None, (), raw))
            continue
        top = tuple(
            TokenAlternative(one, name(one)[0], value, name(one)[1])
            for one, value in zip(top_ids, top_logprobs, strict=True)
        )
        tokens.append(ScoredToken(number, token, text, logprob, rank, entropy, top, raw))
    return tokens

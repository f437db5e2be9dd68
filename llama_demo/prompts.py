"""Conversations as prompts: chat templates, Llama-2's own, a transcript for base models, and what is cut to fit.

A visitor's text can never forge a turn: see `tokenizer` for special tokens, `_refuse_markers` for textual ones, and
`refuse_usual_markers` for another server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llama_demo.errors import ForgedTurn, InvalidHistory, PromptTooLong
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import Turn

LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, the user first') }}{% endif %}"
    "{% if turn['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + ((system if loop.first else '') + turn['content']).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + turn['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Meta's format for Llama-2 chat, for checkpoints that bring no template: one BOS and EOS a turn, a system block only
where there is a system prompt, and no default one."""

TRANSCRIPT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{% if turn['role'] == 'system' %}{{ turn['content'] + '\n\n' }}"
    "{% else %}{{ ('User: ' if turn['role'] == 'user' else 'Assistant: ') + turn['content'] + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For base models, which know no turns: a dialogue written out, ended where the user would speak next."""

TRANSCRIPT_STOPS = ("\nUser:", "\nAssistant:")
LLAMA2_MARKERS = ("<<SYS>>", "<</SYS>>", "[INST]", "[/INST]")
_USUAL_MARKERS = re.compile(r"<\|\w+\|>|\[/?INST\]|<</?SYS>>", re.ASCII)
"""What begins and ends turns in the templates that are in use."""
_END = "\ue000end of the open reply\ue001"
_TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""A template is a stranger's program: besides its own refusals it may fail as any expression may."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model gets it. `stops` end the reply besides the model's own end tokens."""

    text: str
    ids: tuple[int, ...]
    is_transcript: bool = False
    stops: tuple[str, ...] = ()


def render(tokenizer: Tokenizer, turns: Sequence[Turn], *, continue_last: bool = False) -> Prompt:
    """The prompt for `turns`, by the tokenizer's own template, or as a transcript where it has none.

    With `continue_last` the last turn, the assistant's, is left open. Raises `ForgedTurn`, and `InvalidHistory` where
    the template refuses the conversation.
    """
    source = tokenizer.chat_template or TRANSCRIPT_TEMPLATE
    has_markers, is_transcript = "[INST]" in source, tokenizer.chat_template is None
    if has_markers:
        _refuse_markers(turns)
    is_blank = has_markers and turns[0].role == "system" and not turns[0].content.strip()
    messages = [{"role": turn.role, "content": tokenizer.guard(turn.content)} for turn in turns[is_blank:]]
    if continue_last:
        messages[-1]["content"] += _END
    try:
        rendered = _compiled(source).render(
            messages=messages, add_generation_prompt=not continue_last, **_named(tokenizer)
        )
    except _TEMPLATE_ERRORS as error:
        raise InvalidHistory(len(turns) - 1, Reason("history.template", said=str(error))) from None
    if continue_last:
        rendered, end, _ = rendered.rpartition(_END)
        if not end:
            raise InvalidHistory(len(turns) - 1, Reason("history.no_reply"))
    return Prompt(
        text=tokenizer.reveal(rendered),
        ids=tuple(tokenizer.encode_guarded(rendered)),
        is_transcript=is_transcript,
        stops=LLAMA2_MARKERS if has_markers else TRANSCRIPT_STOPS if is_transcript else (),
    )


def template_for(name: str) -> str | None:
    """The template of a model that brings none: Llama-2's for its chat models, by their name; none for base models."""
    return LLAMA2_TEMPLATE if re.search(r"llama-?2.*chat", name.lower()) else None


def fit(
    turns: Sequence[Turn], room_tokens: int, count: Callable[[Sequence[Turn]], int]
) -> tuple[tuple[Turn, ...], int]:
    """The turns that fit into `room_tokens`, and how many of the oldest were dropped.

    The system prompt and the newest turns stay; turns go in whole exchanges, so that the first kept one is the user's.
    `count` gives the tokens of a conversation. Raises `PromptTooLong` where the last message alone is too long.
    """
    system = tuple(turn for turn in turns[:1] if turn.role == "system")
    rest = tuple(turns[len(system) :])
    starts = [index for index, turn in enumerate(rest) if index == 0 or turn.role == "user"]
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if count((*system, *rest[starts[middle] :])) <= room_tokens:
            high = middle
        else:
            low = middle + 1
    kept = (*system, *rest[starts[low] :])
    if (tokens := count(kept)) > room_tokens:
        raise PromptTooLong(tokens, room_tokens)
    return kept, starts[low]


def refuse_usual_markers(turns: Sequence[Turn]) -> None:
    """For a model whose template another server has: what its tokenizer may read as the border of a turn. Not in the
    assistant's turns, which that server may have written so. Raises `ForgedTurn`."""
    for turn in turns:
        if turn.role != "assistant" and (found := _USUAL_MARKERS.search(turn.content)):
            raise ForgedTurn(found[0])


def _refuse_markers(turns: Sequence[Turn]) -> None:
    """Llama-2's markers are plain text, so a visitor's own cannot be told from the template's: they are refused, in the
    assistant's turns too. A reply ends before one (`Prompt.stops`), so that none of the model's own has any."""
    for turn in turns:
        for marker in LLAMA2_MARKERS:
            if marker in turn.content:
                raise ForgedTurn(marker)


def _named(tokenizer: Tokenizer) -> dict[str, str]:
    return {"bos_token": "", "eos_token": "", **tokenizer.named_tokens}


@lru_cache(maxsize=32)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))

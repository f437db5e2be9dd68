"""What the OpenAI API lets a program ask, as far as this app can do it; everything else is refused by its name.

A field that is null counts as left out. It knows shapes and bounds, and no engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llama_demo.api.fields import Neutral, Never, Strict, number
from llama_demo.values import MAX_ALTERNATIVES, MAX_STOP_CHARACTERS, MAX_STOPS, SEED_LIMIT, Sampling, Turn, bounds

MAX_TOP_LOGPROBS = 20
MAX_PROMPTS = 128
_INT64 = 2**63
_IGNORED = "Taken, and without effect."
_NOT_ON_OPENVINO = "Refused where OpenVINO runs the model."

_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Prompts = (
    Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
    | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
)


class StreamOptions(Strict):
    include_usage: bool | None = Field(None, description="One more event before the end, with the usage of it all.")
    include_obfuscation: Annotated[None, Neutral("api.no_padding", False)] = None


class Asked(Strict):
    """What both endpoints take."""

    model: str | None = Field(
        None, description="A name that `/v1/models` lists; left out or empty, the app's default model."
    )
    n: int | None = Field(
        None,
        ge=1,
        le=MAX_ALTERNATIVES,
        description="How many answers, side by side, each with a seed of its own: `seed`, `seed` + 1 and so on.",
    )
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="Texts that end the answer, which comes without them."
    )
    seed: int | None = Field(
        None, ge=-_INT64, lt=_INT64, description="The same seed repeats the same text, as far as the profile allows."
    )
    temperature: float | None = number("temperature", "0 for the likeliest token each time. Left out: 1.")
    top_p: float | None = number("top_p", "Among the likeliest tokens of this probability together. Left out: 1.")
    top_k: int | None = number("top_k", "An extension: among so many of the likeliest tokens. Left out: 0, all.")
    min_p: float | None = number("min_p", "An extension: none below this share of the likeliest one's probability.")
    repetition_penalty: float | None = number(
        "repetition_penalty", "An extension: above 1, tokens of the prompt and the answer become less likely."
    )
    presence_penalty: float | None = number(
        "presence_penalty", f"Off the logit of each token that the answer has. {_NOT_ON_OPENVINO}"
    )
    frequency_penalty: float | None = number(
        "frequency_penalty", f"The same, as often as the answer has the token. {_NOT_ON_OPENVINO}"
    )
    stream: bool | None = Field(None, description="Server-sent events as the answer grows; the last is `[DONE]`.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    logit_bias: Annotated[None, Neutral("api.no_bias", {})] = None
    user: str | None = Field(None, description=_IGNORED)

    def sampling(self, max_new_tokens: int) -> Sampling:
        """As the API defines it: temperature 1 and no cuts where nothing else is said."""
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=_or(self.temperature, 1.0),
            top_p=_or(self.top_p, 1.0),
            top_k=_or(self.top_k, 0),
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            seed=None if self.seed is None else self.seed % SEED_LIMIT,
        )

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(Strict):
    type: Annotated[Literal["text"], Never("api.text_only", "image_url", "input_audio", "file", "refusal")]
    text: str


class Message(Strict):
    """One turn. What comes back with an answer of ours may be sent with it again."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], Never("api.no_tools", "tool", "function")]
    content: str | list[TextPart]
    refusal: Annotated[None, Neutral("api.text_only")] = None
    annotations: Annotated[None, Neutral("api.text_only", [])] = None
    audio: Annotated[None, Neutral("api.text_only")] = None
    function_call: Annotated[None, Neutral("api.no_tools")] = None
    tool_calls: Annotated[None, Neutral("api.no_tools", [])] = None

    def turn(self) -> Turn:
        """Raises `InvalidUnicode`."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn("system" if self.role == "developer" else self.role, text)


class ChatRequest(Asked):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, description="The conversation to answer.")
    max_completion_tokens: int | None = number(
        "max_new_tokens", "The longest answer; left out, what there is room for."
    )
    max_tokens: int | None = number("max_new_tokens", "The older name of `max_completion_tokens`.")
    logprobs: bool | None = Field(None, description="Each token of the answer with its log-probability.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="So many of the likeliest tokens in each place; only with `logprobs`, and without `stream`.",
    )
    tools: Annotated[None, Neutral("api.no_tools", [])] = None
    tool_choice: Annotated[None, Neutral("api.no_tools", "none", "auto")] = None
    parallel_tool_calls: bool | None = Field(None, description=_IGNORED)
    functions: Annotated[None, Neutral("api.no_tools", [])] = None
    function_call: Annotated[None, Neutral("api.no_tools", "none", "auto")] = None
    response_format: Annotated[None, Neutral("api.no_format", {"type": "text"})] = None
    modalities: Annotated[None, Neutral("api.text_only", ["text"])] = None
    audio: Annotated[None, Neutral("api.text_only")] = None
    reasoning_effort: Annotated[None, Neutral("api.no_reasoning", "none")] = None
    verbosity: Annotated[None, Neutral("api.no_verbosity")] = None
    web_search_options: Annotated[None, Neutral("api.no_search")] = None
    store: Annotated[None, Neutral("api.nothing_kept", False)] = None
    metadata: dict[str, str] | None = Field(None, description=_IGNORED)
    service_tier: Annotated[None, Neutral("api.one_tier", "auto", "default")] = None
    safety_identifier: str | None = Field(None, description=_IGNORED)
    prompt_cache_key: str | None = Field(None, description=_IGNORED)


class CompletionsRequest(Asked):
    """`POST /v1/completions`."""

    prompt: str | _Ids | _Prompts = Field(
        description="The text to go on with, or its token ids; or several of either, answered in this order."
    )
    max_tokens: int | None = Field(
        None,
        ge=0,
        le=bounds("max_new_tokens")[1],
        description="The longest continuation; 0 only with `echo`. Left out: 16.",
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="Log-probabilities, with so many of the likeliest tokens in each place; above 0 without `stream`.",
    )
    echo: bool | None = Field(None, description="The prompt comes before its continuation; with `logprobs`, scored.")
    best_of: int | None = Field(None, description="Only the same as `n`: answers are not ranked here.")
    suffix: Annotated[None, Neutral("api.no_suffix", "")] = None

    def prompts(self) -> list[str | tuple[int, ...]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(number for number in self.prompt if isinstance(number, int))]
        return [one if isinstance(one, str) else tuple(one) for one in self.prompt if not isinstance(one, int)]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value

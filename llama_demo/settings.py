"""Settings, read once at the start from the arguments and an environment that are passed in.

A flag wins over `LLAMA_DEMO_<NAME>`, and that over Gradio's own `GRADIO_SERVER_NAME` and `GRADIO_SERVER_PORT`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from llama_demo.errors import InvalidSetting
from llama_demo.messages import messages
from llama_demo.reasons import Reason
from llama_demo.space import SPACE, ZERO_GPU, SignIn, sign_in, storage

PREFIX = "LLAMA_DEMO_"
OWNER_PASSWORD = PREFIX + "OWNER_PASSWORD"
"""Never a flag, which every user of the machine could read in the list of processes."""
_PUBLIC_CHARACTERS, _PUBLIC_NEW_TOKENS = 20_000, 1024
"""What a public server takes and gives where nothing else was chosen."""
_SHARE_PROXIES = "127.0.0.1"
"""A public link's tunnel ends on this machine."""
_SPACE_PROXIES = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.1"
"""Between a Space and its visitors stands its host's own network."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Settings:
    """Everything the owner can choose. Field names are the options' names."""

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    public: bool = False
    trusted_proxies: str = ""
    api_keys: str = ""
    auth_file: str = ""
    model: str = ""
    catalog: str = ""
    device: str = "auto"
    dtype: str = "auto"
    reproducible: bool = False
    log_prompts: bool = False
    cache_dir: Path = Path("~/.cache/llama-demo")
    memory_gb: float = 0.0
    idle_minutes: float = 60.0
    context_tokens: int = 4096
    cached_conversations: int = 8
    max_new_tokens: int = 2048
    message_characters: int = 100_000
    concurrent: int = 64
    queue: int = 512
    visitor_concurrent: int = 4
    visitor_waiting: int = 32
    visitor_requests: int = 60
    visitor_tokens: int = 20_000
    request_seconds: float = 300.0
    owner_password: str = field(default="", repr=False, metadata={"environment": True})
    space: bool = field(default=False, metadata={"environment": True})
    """Whether this is a Hugging Face Space, whose page stands in a frame of another site."""
    zero_gpu: bool = field(default=False, metadata={"environment": True})
    """Whether it is one to which a GPU is lent for each call."""
    sign_in: SignIn | None = field(default=None, metadata={"environment": True})
    """How its owner signs in at the Hub, where it can ask that."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as people meet it: its flag, its variable, what it takes and what it does."""

    name: str
    default: Any
    expected: Reason
    help: str
    parse: Callable[[str], Any]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _networks(text: str) -> str:
    return ",".join(str(ip_network(part.strip())) for part in text.split(",") if part.strip())


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise ValueError(text)
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not low <= (value := float(text)) <= high:
            raise ValueError(text)
        return value

    return parse


def _among(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return parse


_DETAILS: dict[str, tuple[Reason, str, Callable[[str], Any]]] = {
    "host": (Reason("expected.address"), "the address to listen on; 0.0.0.0 for every network of this machine", str),
    "port": (Reason("expected.whole_number", low=1, high=65535), "the port to listen on", _whole(1, 65535)),
    "share": (Reason("expected.on_or_off"), "make a public link that lives for up to a week", _boolean),
    "public": (
        Reason("expected.on_or_off"),
        "for strangers: limits for each visitor, and no owner's functions without the owner's password; on with a"
        " public link and on a Space unless turned off",
        _boolean,
    ),
    "trusted_proxies": (
        Reason("expected.networks"),
        "proxies in front of this server, which are believed when they say whom they pass on",
        _networks,
    ),
    "api_keys": (Reason("expected.file"), "the API keys that /v1 asks for, as new-api-key writes them", str),
    "auth_file": (
        Reason("expected.file"),
        "the names and passwords that the page, the Gradio API and MCP ask for, and /v1 too where it has no keys; as"
        " hash-password writes them",
        str,
    ),
    "model": (Reason("expected.model"), "the model to start with; the embedded one if empty", str),
    "catalog": (Reason("expected.catalog_file"), "your own models, and which of all models visitors may choose", str),
    "device": (
        Reason("expected.device"),
        "where models in Hugging Face or Meta's format run; auto is the best that fits: one GPU, several, the CPU",
        _among("auto", "cpu", *(f"cuda:{number}" for number in range(16))),
    ),
    "dtype": (
        Reason("expected.either", others=("auto", "float16", "bfloat16", "float32", "8-bit"), last="4-bit"),
        "the type of such models' weights; auto is the checkpoint's own, or the widest that fits a GPU; bfloat16 has"
        " float32's range and fewer digits than float16; 8-bit and 4-bit are for GPUs",
        _among("auto", "float16", "bfloat16", "float32", "8-bit", "4-bit"),
    ),
    "reproducible": (
        Reason("expected.on_or_off"),
        "exact arithmetic: a seed repeats its text among other visitors too, at about two thirds of the speed",
        _boolean,
    ),
    "log_prompts": (
        Reason("expected.on_or_off"),
        "write what visitors send into the log; off, nothing of it is kept",
        _boolean,
    ),
    "cache_dir": (Reason("expected.folder"), "where converted models are kept", Path),
    "memory_gb": (
        Reason("expected.number", low=0, high=100_000),
        "how much memory models may take; 0 for most of what is free at the start",
        _number(0, 1e5),
    ),
    "idle_minutes": (
        Reason("expected.number", low=0, high=1_000_000),
        "unload a model that nobody has used for so long; 0 for never",
        _number(0, 1e6),
    ),
    "context_tokens": (
        Reason("expected.whole_number", low=128, high=1_000_000),
        "the longest conversation a model is asked to hold, prompt and reply together",
        _whole(128, 1_000_000),
    ),
    "cached_conversations": (
        Reason("expected.whole_number", low=1, high=4096),
        "how many conversations of that length a model's cache holds side by side, or as many as fit",
        _whole(1, 4096),
    ),
    "max_new_tokens": (
        Reason("expected.whole_number", low=1, high=1_000_000),
        "the longest reply",
        _whole(1, 1_000_000),
    ),
    "message_characters": (
        Reason("expected.whole_number", low=1, high=100_000_000),
        "the longest message, conversation included",
        _whole(1, 100_000_000),
    ),
    "concurrent": (
        Reason("expected.whole_number", low=1, high=4096),
        "how many requests are answered side by side",
        _whole(1, 4096),
    ),
    "queue": (
        Reason("expected.whole_number", low=0, high=100_000),
        "how many more may wait before the rest hear that it is busy",
        _whole(0, 100_000),
    ),
    "visitor_concurrent": (
        Reason("expected.whole_number", low=1, high=4096),
        "how many requests of one visitor a public server answers side by side",
        _whole(1, 4096),
    ),
    "visitor_waiting": (
        Reason("expected.whole_number", low=1, high=100_000),
        "how many more of one visitor may wait on a public server",
        _whole(1, 100_000),
    ),
    "visitor_requests": (
        Reason("expected.whole_number", low=1, high=1_000_000),
        "how many requests one visitor of a public server has a minute",
        _whole(1, 1_000_000),
    ),
    "visitor_tokens": (
        Reason("expected.whole_number", low=1, high=1_000_000_000),
        "how many tokens one visitor of a public server has a minute, read and written together",
        _whole(1, 1_000_000_000),
    ),
    "request_seconds": (
        Reason("expected.number", low=1, high=1_000_000),
        "how long a public server works on one visitor's request",
        _number(1, 1e6),
    ),
}


def options() -> tuple[Option, ...]:
    """Every setting that people choose, in the order of `Settings`; not what the environment alone says."""
    chosen = (one for one in fields(Settings) if not one.metadata.get("environment"))
    return tuple(Option(one.name, one.default, *_DETAILS[one.name]) for one in chosen)


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str] = ()) -> None:
    """Gives `parser` a flag for every setting, or for those of `names`; unset flags are left out of the namespace."""
    words = messages()
    for option in options():
        if names and option.name not in names:
            continue
        switch = {"nargs": "?", "const": "on"} if isinstance(option.default, bool) else {}
        shown = f"{option.help} ({words.reason(option.expected)}; default: {_shown(option.default)}; {option.variable})"
        parser.add_argument(
            option.flag,
            dest=option.name,
            metavar=option.name.upper(),
            default=argparse.SUPPRESS,
            help=shown.replace("%", "%%"),
            **switch,  # type: ignore[arg-type]
        )


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default}" if default != "" else "none"


def read_settings(given: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Settings from flags (`given`, by field name) and the environment.

    Raises `InvalidSetting` naming the flag or the variable at fault.
    """
    values: dict[str, Any] = {}
    for option in options():
        for source, text in _sources(option, given, environment):
            try:
                values[option.name] = option.parse(text)
            except (ValueError, OverflowError):
                raise InvalidSetting(source, text, option.expected) from None
            break
    kept = storage(environment)
    usual = Settings.cache_dir if kept is None else kept / "llama-demo"
    values["cache_dir"] = Path(values.get("cache_dir", usual)).expanduser()
    values["owner_password"] = environment.get(OWNER_PASSWORD, "")
    values["space"] = bool(environment.get(SPACE))
    values["sign_in"] = sign_in(environment)
    values["zero_gpu"] = environment.get(ZERO_GPU, "").lower() in _TRUE
    if values["space"] or values.get("share"):
        values.setdefault("public", True)
    if values.get("public"):
        values.setdefault("message_characters", _PUBLIC_CHARACTERS)
        values.setdefault("max_new_tokens", _PUBLIC_NEW_TOKENS)
    if values["space"] or values.get("share"):
        values.setdefault("trusted_proxies", _SPACE_PROXIES if values["space"] else _SHARE_PROXIES)
    return Settings(**values)


def _sources(option: Option, given: Mapping[str, str], environment: Mapping[str, str]) -> list[tuple[str, str]]:
    gradio = {"host": "GRADIO_SERVER_NAME", "port": "GRADIO_SERVER_PORT"}.get(option.name, "")
    found = [(option.flag, given.get(option.name)), (option.variable, environment.get(option.variable))]
    found.append((gradio, environment.get(gradio)))
    return [(source, text) for source, text in found if text is not None and (text != "" or source == option.flag)]

"""A runtime for the page's tests that follows a script: the shape of the real one, with no model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from llama_demo.catalog import EMBEDDED, Catalog
from llama_demo.credentials import ApiKeys, Users
from llama_demo.limits import Limits
from llama_demo.messages import Messages, messages
from llama_demo.metrics import Metrics
from llama_demo.settings import Settings
from llama_demo.values import ChatUpdate, ModelState, Reply, Sampling, Speed, Turn
from llama_demo.visitors import Visitors


@dataclass
class Asked:
    """One request as it reached the generation."""

    turns: tuple[Turn, ...]
    model: str
    sampling: Sampling
    continue_last: bool
    closed: bool = False


Script = Callable[[Asked], Sequence[ChatUpdate | BaseException]]


@dataclass
class ScriptedGeneration:
    """Says what the script says, one update every `pause_seconds`, until it is stopped or closed."""

    script: Script
    pause_seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    async def chat(
        self,
        turns: Sequence[Turn],
        *,
        model: str,
        sampling: Sampling,
        continue_last: bool = False,
        stopper: SimpleNamespace | None = None,
    ) -> AsyncGenerator[ChatUpdate, None]:
        asked = Asked(tuple(turns), model, sampling, continue_last)
        self.asked.append(asked)
        try:
            said: ChatUpdate | None = None
            for step in self.script(asked):
                if stopper is not None and stopper.stopped:
                    if isinstance(said, Reply):
                        yield replace(said, finish="cancelled")
                    return
                if isinstance(step, BaseException):
                    raise step
                said = step
                yield step
                await asyncio.sleep(self.pause_seconds)
        finally:
            asked.closed = True


def reply(text: str, **data: object) -> Reply:
    """A reply so far, of the embedded model."""
    values: dict[str, object] = {
        "model": EMBEDDED.name,
        "prompt_tokens": 40,
        "new_tokens": len(text.split()),
        "context_tokens": 2048,
        "seed": 7,
        "prompt": "<|im_start|>user\nhello<|im_end|>\n",
        "speed": Speed(0.08, 94.0),
        **data,
    }
    return Reply(text=text, **values)  # type: ignore[arg-type]


def echo(asked: Asked) -> list[ChatUpdate | BaseException]:
    """Says the last message back, word by word."""
    begins = asked.turns[-1].content + " " if asked.continue_last else ""
    words = ("You said: " + asked.turns[-1].content).split()
    steps = [reply(begins + " ".join(words[: count + 1])) for count in range(len(words))]
    return [*steps, reply(begins + " ".join(words), finish="stop")]


class ScriptedRuntime:
    """What the page needs of a runtime."""

    def __init__(self, script: Script = echo, pause_seconds: float = 0.0, **settings: object) -> None:
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.visitors = Visitors(public=self.settings.public, password=self.settings.owner_password)
        self.metrics = Metrics()
        self.catalog = Catalog((EMBEDDED,))
        self.default_model = EMBEDDED.name
        self.users: Users | None = None
        self.api_keys: ApiKeys | None = None
        self.limits = Limits(100_000, 2048, 4096)
        self.generation = ScriptedGeneration(script, pause_seconds)
        self.state = ModelState.READY
        self.prepared: list[str] = []
        self.prepare = self.prepared.append
        names = ("load", "unload", "cancel", "pin", "download", "convert", "check_access")
        self.management = SimpleNamespace(**dict.fromkeys(names, self._load))

    def _load(self, name: str, *, pinned: bool = False) -> None:
        """There is nothing to load."""

    def messages(self, language: str = "en") -> Messages:
        return messages(language)

    def models(self, *, everything: bool = False) -> list[SimpleNamespace]:
        """One model, the embedded one."""
        return [
            SimpleNamespace(
                name=EMBEDDED.name,
                title=EMBEDDED.title,
                good_for=EMBEDDED.good_for,
                access=EMBEDDED.access,
                state=self.state,
                device="cpu",
                bytes=700_000_000,
                fits=True,
                progress=None,
                error=None,
                where="here",
                job=None,
                refusal=None,
                public=lambda: {"name": EMBEDDED.name, "state": str(self.state)},
            )
        ]

    def status(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(state=self.state)

    def memory(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(device="cpu", used_bytes=700_000_000, budget_bytes=8_000_000_000)]

    def waiting(self) -> int:
        return 0


def scripted(script: Script = echo, pause_seconds: float = 0.0, **settings: object) -> Any:
    """A `ScriptedRuntime` where the real one's type is asked for."""
    return ScriptedRuntime(script, pause_seconds, **settings)

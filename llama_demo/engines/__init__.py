"""The engine contract: token ids in, token ids out. An engine knows nothing of text, templates or people.

Implementations: `openvino` (GGUF on the CPU, in a process of its own) and `transformers` (everything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_demo.engines.stream import TokenStream
    from llama_demo.values import Sampling, Scores


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can do of the contract. A call of what it cannot raises `errors.Unsupported`."""

    generate: bool
    score: bool
    embed: bool


class Engine(Protocol):
    """One loaded model. Every method may be called from any thread."""

    abilities: Abilities
    context_tokens: int
    """Prompt and continuation together hold at most this many tokens."""
    resident_bytes: int
    """What the weights and the cache take when full."""

    @property
    def healthy(self) -> bool:
        """False for good once the process or the thread behind it has died: the registry then loads afresh."""

    def generate(self, ids: Sequence[int], sampling: Sampling) -> TokenStream:
        """Starts a request and returns at once. The end token is not among the stream's tokens, but its `end`.

        A seed repeats its text exactly when alone. The caller keeps `len(ids) + max_new_tokens` within the context;
        empty `ids` are refused with `ValueError`, a setting that cannot be honoured with `UnsupportedParameter`.
        """

    def score(self, ids: Sequence[int], top_k: int) -> Scores:
        """Teacher-forced log-probabilities of all `ids`; blocks."""

    def score_endings(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The log-probability of each token of each ending after each prompt, float32 [len(prompts), len(endings),
        longest ending], NaN after an ending's last token; blocks. A prompt is read once for all endings.

        The caller keeps prompt and ending together within the context; empty ones are refused with `ValueError`.
        """

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The last token's last hidden state (after the final norm) of each text, float32 [len(batch), hidden];
        blocks. A text gives the same vector alone and in a batch."""

    def close(self) -> None:
        """Ends every request in flight with `errors.Closing`, gives the memory back, and returns when it is done."""

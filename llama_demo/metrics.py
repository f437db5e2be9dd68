"""What Prometheus is told: requests and their errors, how fast tokens come, who waits, what fills the memory.

Nothing here is global: each runtime has its own registry, and numbers that something else knows are read when asked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from llama_demo.observe import LOG
from llama_demo.values import Speed

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
_PER_TOKEN = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_REQUEST = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@dataclass(frozen=True, slots=True)
class Levels:
    """What is so at this moment. `memory` is by device: used and allowed bytes; `models` is by state."""

    running: int
    waiting: int
    evictions: int
    memory: tuple[tuple[str, int, int], ...]
    models: tuple[tuple[str, int], ...]


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "llama_demo_requests", "Requests by kind and end.", ["kind", "end"], registry=self._registry
        )
        self._errors = Counter("llama_demo_errors", "Errors by kind.", ["kind"], registry=self._registry)
        self._seconds = Histogram(
            "llama_demo_request_seconds",
            "From a request to its end, its wait in the line included.",
            ["kind"],
            buckets=_REQUEST,
            registry=self._registry,
        )
        self._first_token = Histogram(
            "llama_demo_first_token_seconds",
            "From a request's turn to its first token.",
            buckets=_FIRST_TOKEN,
            registry=self._registry,
        )
        self._per_token = Histogram(
            "llama_demo_per_token_seconds",
            "Between two tokens of a request, its mean.",
            buckets=_PER_TOKEN,
            registry=self._registry,
        )
        self._leases = Counter(
            "llama_demo_model_leases",
            "Requests that found their model in memory, and those that had to wait for it.",
            ["found"],
            registry=self._registry,
        )
        self._tokens = Counter("llama_demo_tokens", "Tokens read and written.", ["kind"], registry=self._registry)

    def watch(self, levels: Callable[[], Levels]) -> None:
        """Asks `levels` each time it is read."""
        self._registry.register(_Levels(levels))

    @contextmanager
    def request(self, kind: str) -> Iterator[str]:
        """Counts the block as one request, and gives the id that the log knows it by."""
        identity, started, end = secrets.token_hex(6), time.monotonic(), "left"
        try:
            yield identity
            end = "done"
        except Exception as error:
            end = "failed"
            self.error(error)
            LOG.info("request=%s kind=%s error=%s", identity, kind, type(error).__name__)
            raise
        finally:
            self._requests.labels(kind, end).inc()
            self._seconds.labels(kind).observe(time.monotonic() - started)

    def error(self, error: BaseException) -> None:
        self._errors.labels(type(error).__name__).inc()

    def lease(self, *, waited: bool) -> None:
        self._leases.labels("absent" if waited else "ready").inc()

    def tokens(self, *, read: int, written: int, speed: Speed | None = None) -> None:
        """What one request took; `speed` where it was measured."""
        self._tokens.labels("prompt").inc(read)
        self._tokens.labels("new").inc(written)
        if speed is not None:
            self._first_token.observe(speed.first_token_seconds)
            if speed.tokens_per_second > 0:
                self._per_token.observe(1 / speed.tokens_per_second)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)


class _Levels(Collector):
    def __init__(self, levels: Callable[[], Levels]) -> None:
        self._levels = levels

    def collect(self) -> Iterable[Metric]:
        now = self._levels()
        yield GaugeMetricFamily("llama_demo_requests_running", "Requests that are answered.", now.running)
        yield GaugeMetricFamily("llama_demo_requests_waiting", "Requests in the line.", now.waiting)
        yield CounterMetricFamily("llama_demo_evictions", "Models unloaded to make room for others.", now.evictions)
        used = GaugeMetricFamily("llama_demo_memory_used_bytes", "What models take of a device.", labels=["device"])
        allowed = GaugeMetricFamily("llama_demo_memory_budget_bytes", "What models may take.", labels=["device"])
        for device, taken, budget in now.memory:
            used.add_metric([device], taken)
            allowed.add_metric([device], budget)
        models = GaugeMetricFamily("llama_demo_models", "Models in memory or on the way, by state.", labels=["state"])
        for state, count in now.models:
            models.add_metric([state], count)
        yield from (used, allowed, models)

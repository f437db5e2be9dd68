"""How a request gets its model: its turn in the line, then a lease, with the load's progress; both given up together.

Chat, completions, scores and classification all come through here. It knows nothing of prompts or tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from llama_demo.engines.remote import RemoteServer
from llama_demo.errors import LlamaDemoError
from llama_demo.limits import Admission, Place
from llama_demo.loading import LoadedModel
from llama_demo.metrics import Metrics
from llama_demo.registry import Lease, Registry
from llama_demo.values import LoadProgress, Speed, Waiting
from llama_demo.visitor_errors import TookTooLong
from llama_demo.visitors import NOBODY, Visitor

UPDATE_SECONDS = 0.1
"""An answer is shown anew so often where there are few readers."""
UPDATES_PER_SECOND = 60
"""All readers together get no more updates than this: each costs the page's server about a millisecond."""
SLOWEST_UPDATE_SECONDS = 0.8
"""However many read: a closed tab must be noticed within a second."""
SLOWEST_PLACE_SECONDS = 3.0
"""However many wait: their places are shown anew so often. Nothing is worked on for a closed tab among them."""

T = TypeVar("T")


class Cancellable(Protocol):
    def cancel(self) -> None:
        """Asks for an end; returns at once, and may be called twice."""


class Stopper:
    """Ends one request from another handler: at once, without waiting for the request's next update. It says whose
    request it is, too."""

    def __init__(self, visitor: Visitor = NOBODY) -> None:
        self.visitor = visitor
        self.stopped = False
        self.error: LlamaDemoError | None = None
        """Why the server ended it; none where the visitor did."""
        self._streams: list[Cancellable] = []

    def stop(self) -> None:
        self.stopped = True
        for stream in tuple(self._streams):
            stream.cancel()

    def end(self, error: LlamaDemoError) -> None:
        """Stops it from the server's side, from any thread: whoever reads hears `error` after what there is."""
        if not self.stopped:
            self.error = error
        self.stop()

    def check(self) -> None:
        """Raises what the server ended it with."""
        if self.error is not None:
            raise self.error

    def attach(self, stream: Cancellable) -> None:
        self._streams.append(stream)
        if self.stopped:
            stream.cancel()


class Bell:
    """Wakes one task of the loop it was made in."""

    def __init__(self) -> None:
        self._loop, self._rung = asyncio.get_running_loop(), asyncio.Event()

    def ring(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits
            self._loop.call_soon_threadsafe(self._rung.set)

    cancel = ring
    """As a `Stopper` calls it."""

    async def wait(self, seconds: float) -> None:
        """Until it rings or has rung, for so long at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)


class Seat:
    """One request's turn and its lease of `loaded`."""

    def __init__(self, place: Place, lease: Lease[LoadedModel]) -> None:
        self._place, self._lease = place, lease
        self._lock = threading.Lock()
        self._holders = 1

    @property
    def loaded(self) -> LoadedModel:
        return self._lease.value

    def hold(self) -> None:
        """One more `leave` is needed before the seat is given up."""
        with self._lock:
            self._holders += 1

    def leave(self) -> None:
        """Gives the seat up once everybody who holds it has left; from any thread, never blocks."""
        with self._lock:
            self._holders -= 1
            if self._holders > 0:
                return
        self._lease.release()
        self._place.leave()


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a call gave."""

    value: T


def no_remote(_: str) -> RemoteServer | None:
    """Every model runs here."""
    return None


class Leasing:
    """Seats on the models of one registry, and on those that other servers run, behind one line."""

    def __init__(
        self,
        registry: Registry[LoadedModel],
        admission: Admission,
        metrics: Metrics | None = None,
        remote: Callable[[str], RemoteServer | None] = no_remote,
    ) -> None:
        """`remote` gives the server of a model that runs elsewhere."""
        self._registry, self._remote = registry, remote
        self._admission = admission
        self.metrics = metrics or Metrics()

    def update_seconds(self) -> float:
        """Seconds between two updates of one request: longer as readers grow, so that all together stay affordable."""
        return min(SLOWEST_UPDATE_SECONDS, max(UPDATE_SECONDS, self._admission.active / UPDATES_PER_SECOND))

    def _place_seconds(self) -> float:
        """The same for one who waits in the line, who is called when its turn has come."""
        return min(SLOWEST_PLACE_SECONDS, max(UPDATE_SECONDS, self._admission.waiting / UPDATES_PER_SECOND))

    async def seat(
        self, model: str, stopper: Stopper
    ) -> AsyncGenerator[LoadProgress | Waiting | Seat | RemoteServer, None]:
        """Where they apply, the place in the line and the load's progress, again and again, so that whoever reads can
        leave; last the seat, or the server that runs the model, which is given up when the generator is closed. Neither
        where `stopper` stops the wait.

        Raises `Busy`, `TooManyRequests`, what `stopper` was ended with, and whatever loading the model raises, or
        `RemoteUnavailable`.
        """
        bell = Bell()
        stopper.attach(bell)
        place = self._admission.enter(stopper.visitor, stopper.end, bell.ring)
        seat: Seat | None = None
        timer: asyncio.TimerHandle | None = None
        try:
            while not stopper.stopped:
                number, seconds = place.position()
                if number == 0:
                    break
                yield Waiting(number, seconds)
                await bell.wait(self._place_seconds())
            stopper.check()
            if stopper.stopped:
                return
            if (server := self._remote(model)) is not None:
                async with aclosing(self._reach(server, stopper)) as steps:
                    async for step in steps:
                        timer = self._end_in_time(stopper) if step is server else None
                        yield step
                stopper.check()
                return
            ticket = self._registry.request(model)
            waited = False
            try:
                while (lease := ticket.poll()) is None and not stopper.stopped:
                    waited = True
                    yield ticket.progress
                    await asyncio.sleep(self.update_seconds())
                if lease is not None:
                    self.metrics.lease(waited=waited)
                    seat = Seat(place, lease)
                    timer = self._end_in_time(stopper)
                    yield seat
            finally:
                ticket.cancel()
            stopper.check()
        finally:
            if timer is not None:
                timer.cancel()
            (seat or place).leave()

    async def _reach(self, server: RemoteServer, stopper: Stopper) -> AsyncGenerator[LoadProgress | RemoteServer, None]:
        """`server`, once it has been looked at where it is not known to be there. Raises `RemoteUnavailable`."""
        if server.down is not None or server.found is None:
            looking = asyncio.wrap_future(server.look())
            looking.add_done_callback(_heard)
            while not looking.done() and not stopper.stopped:
                yield LoadProgress("connect")
                await asyncio.wait([looking], timeout=self.update_seconds())
            if looking.done():
                looking.result()
        if not stopper.stopped:
            yield server

    def spend(self, visitor: Visitor, *, read: int, written: int, speed: Speed | None = None) -> None:
        """Counts a request's tokens, for its visitor and for all."""
        self._admission.spend(visitor, read + written)
        self.metrics.tokens(read=read, written=written, speed=speed)

    def _end_in_time(self, stopper: Stopper) -> asyncio.TimerHandle | None:
        seconds = self._admission.seconds_for(stopper.visitor)
        if seconds is None:
            return None
        return asyncio.get_running_loop().call_later(seconds, stopper.end, TookTooLong(seconds))

    async def call(
        self, model: str, work: Callable[[LoadedModel], T], stopper: Stopper
    ) -> AsyncGenerator[LoadProgress | Waiting | Done[T], None]:
        """What the blocking `work` gives on `model`, computed on a thread of its own; until then what `seat` tells, and
        `Waiting(0, None)` while it computes.

        Whoever leaves, or stops, waits for nothing; the seat is kept until the thread is done with the model. Raises
        as `seat`, and what `work` raises.
        """
        async with aclosing(self.seat(model, stopper)) as steps:
            async for step in steps:
                assert not isinstance(step, RemoteServer), "what needs tokens is refused of those before"
                if not isinstance(step, Seat):
                    yield step
                    continue
                if stopper.stopped:
                    return
                future = _start(step, work)
                while not future.done() and not stopper.stopped:
                    await asyncio.wait([future], timeout=self.update_seconds())
                    if not future.done():
                        yield Waiting(0, None)
                if future.done():
                    yield Done(future.result())


async def result_of(updates: AsyncGenerator[object, None], kind: type[T]) -> T:
    """What `updates` end with. Raises `LlamaDemoError` where they end without it."""
    last: object = None
    async with aclosing(updates):
        async for update in updates:
            last = update
    if not isinstance(last, kind):
        raise LlamaDemoError
    return last


def on_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """What the blocking `work` gives. The loop's own pool has few threads, which its other users need: this one is
    started for the call, and ends by itself where whoever waits has left."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From now on a reader who leaves cannot cancel it.

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 whatever it is, the one who waits must hear of it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    waited = asyncio.wrap_future(future)
    waited.add_done_callback(_heard)
    return waited


def _start(seat: Seat, work: Callable[[LoadedModel], T]) -> asyncio.Future[T]:
    """`work` on the seat's model; the seat is held until the thread has left it."""

    def run() -> T:
        try:
            return work(seat.loaded)
        finally:
            seat.leave()

    seat.hold()
    try:
        return on_thread(run, "analysis")
    except RuntimeError:
        seat.leave()
        raise


def _heard(future: asyncio.Future[T]) -> None:
    """The loop complains of errors that nobody asks for, as those of a call whose reader has left."""
    if not future.cancelled():
        future.exception()

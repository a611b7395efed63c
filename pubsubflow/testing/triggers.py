"""Runs triggers in tests."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio

from pubsubflow.errors import NotFound, TriggerError
from pubsubflow.model.connections import Connection
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow.plugins import decode_trigger, encode_trigger, trigger_name
from pubsubflow.testing.clock import JumpingClock, VirtualClock
from pubsubflow.testing.connections import read_connections

PATIENCE_SECONDS = 20.0
"""After so many seconds of real time a test that waits for a trigger fails."""

AnyTrigger = TypeVar("AnyTrigger", bound=Trigger)


class TrialContext:
    """A trigger's context over a clock of the test's.

    Args:
        clock: A JumpingClock when left out, so nothing ever waits for time.
        position: Where a watched dataset's trigger goes on from.
        connections: Name → connection, as `DAG.test` takes them.

    Attributes:
        logged: What the trigger logged: (event, fields).
        seen: How often each event was logged; under `sleep`, how often it slept.
    """

    def __init__(
        self,
        clock: VirtualClock | None = None,
        *,
        position: Any = None,
        connections: Mapping[str, Any] | None = None,
    ) -> None:
        self.clock = clock or JumpingClock()
        self.position = position
        self.connections = read_connections(connections or {})
        self.started_at: datetime = self.clock.now()
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.seen: Counter[str] = Counter()
        self._changed = anyio.Event()

    def now(self) -> datetime:
        """Return the time."""
        return self.clock.now()

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the clock has come to `moment`."""
        self._count("sleep")
        await self.clock.sleep_until(moment)

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed on the clock."""
        await self.sleep_until(self.clock.now() + timedelta(seconds=seconds))

    async def connection(self, name: str) -> Connection:
        """Return one of `connections`."""
        if name not in self.connections:
            raise TriggerError(str(NotFound("connection", name)))
        return self.connections[name]

    def log(self, event: str, **fields: Any) -> None:
        """Keep a line in `logged`."""
        self.logged.append((event, fields))
        self._count(event)

    async def until(self, event: str, times: int = 1) -> None:
        """Return when the trigger has logged an event, or gone to `sleep`, so many times.

        Raises:
            TimeoutError: It did not within `PATIENCE_SECONDS`.
        """
        with _patience(f"the trigger to come to {event!r} {times} times"):
            while self.seen[event] < times:
                await self._changed.wait()

    def _count(self, event: str) -> None:
        self.seen[event] += 1
        self._changed.set()
        self._changed = anyio.Event()


class RunningTrigger:
    """A trigger that runs beside a test.

    Attributes:
        ctx: What it runs with.
        events: What it told so far.
        error: What it raised, if it did.
        ended: Whether it tells no more.
    """

    def __init__(self, ctx: TrialContext) -> None:
        self.ctx = ctx
        self.events: list[TriggerEvent] = []
        self.error: Exception | None = None
        self.ended = False
        self._asked = 0
        self._changed = anyio.Event()

    async def next(self) -> TriggerEvent:
        """Return the next event that this has not returned yet.

        Raises:
            StopAsyncIteration: The trigger ended before.
            TimeoutError: None came within `PATIENCE_SECONDS`.
            Exception: The trigger raised this.
        """
        with _patience("the trigger to fire"):
            while self._asked == len(self.events):
                if self.error is not None:
                    raise self.error
                if self.ended:
                    raise StopAsyncIteration
                await self._changed.wait()
        self._asked += 1
        return self.events[self._asked - 1]

    async def follow(self, trigger: Trigger) -> None:
        """Run a trigger and keep what it tells."""
        try:
            async with aclosing(_events(trigger, self.ctx)) as events:
                async for event in events:
                    self.events.append(event)
                    self._tell()
        except Exception as error:  # noqa: BLE001 - `next` raises it in the test
            self.error = error
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def running(
    trigger: Trigger, ctx: TrialContext | None = None
) -> AsyncIterator[RunningTrigger]:
    """Run a trigger beside the block, and close it when that ends, as a triggerer does.

    Args:
        trigger: The trigger.
        ctx: What it runs with; a TrialContext when left out, so it never waits for time.
    """
    run = RunningTrigger(ctx or TrialContext())
    async with anyio.create_task_group() as group:
        group.start_soon(run.follow, trigger)
        yield run
        group.cancel_scope.cancel()


async def first_events(
    trigger: Trigger, count: int = 1, *, ctx: TriggerContext | None = None
) -> list[TriggerEvent]:
    """Run a trigger until it has fired so many times, and return what it saw.

    Each event is acknowledged before the next is asked for, as a triggerer does.

    Args:
        trigger: The trigger.
        count: Number of events; fewer come back when the trigger ends before.
        ctx: What it runs with; a TrialContext when left out, so it never waits for time.
    """
    found: list[TriggerEvent] = []
    async with aclosing(_events(trigger, ctx or TrialContext())) as events:
        while len(found) < count:
            try:
                found.append(await anext(events))
            except StopAsyncIteration:
                break
    return found


def carried(trigger: AnyTrigger) -> AnyTrigger:
    """Return a trigger as it is where it runs: found by its name, decoded and checked again.

    Raises:
        DefinitionError: It is not registered, or a field cannot be carried.
        TriggerError: It does not understand its own fields.
    """
    kind = type(trigger)
    found = decode_trigger(trigger_name(kind), encode_trigger(trigger))
    if not isinstance(found, kind):
        raise TriggerError(f"{trigger_name(kind)!r} names {type(found)}, not {kind}")
    return found


async def _events(trigger: Trigger, ctx: TriggerContext) -> AsyncGenerator[TriggerEvent, None]:
    """Yield a trigger's events, acknowledged, and close it at the end."""
    events = trigger.run(ctx)
    try:
        async for event in events:
            if event.acknowledge is not None:
                await event.acknowledge()
            yield event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


@contextmanager
def _patience(what: str) -> Iterator[None]:
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            yield
    except TimeoutError:
        raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s for {what}") from None

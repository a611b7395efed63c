"""Triggers in tests: a context, and ways to run them."""

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
"""Seconds of real time after which a test that waits for a trigger fails."""

AnyTrigger = TypeVar("AnyTrigger", bound=Trigger)


class TrialContext:
    """A trigger's context on the test's clock.

    Args:
        clock: A JumpingClock when left out, so no time is spent waiting.
        position: The stored position of a watched dataset's trigger.
        connections: Name → connection, as for `DAG.test`.

    Attributes:
        logged: The log lines of the trigger: (event, fields).
        troubles: Why it could not see its source, None whenever it could.
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
        self.troubles: list[str | None] = []
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

    def trouble(self, error: str | None) -> None:
        """Keep a change in `troubles`."""
        if not self.troubles or self.troubles[-1] != error:
            self.troubles.append(error)

    def log(self, event: str, **fields: Any) -> None:
        """Keep a line in `logged`."""
        self.logged.append((event, fields))
        self._count(event)

    async def until(self, event: str, times: int = 1) -> None:
        """Return when the trigger has logged an event, or gone to `sleep`, so many times.

        Raises:
            TimeoutError: It did not within `PATIENCE_SECONDS`.
        """
        with _patience(f"the trigger to reach {event!r} {times} times"):
            while self.seen[event] < times:
                await self._changed.wait()

    def _count(self, event: str) -> None:
        self.seen[event] += 1
        self._changed.set()
        self._changed = anyio.Event()


class RunningTrigger:
    """A trigger that runs beside a test.

    Attributes:
        ctx: Its context.
        events: Its events so far.
        error: Its exception, if it raised one.
        ended: Whether it has ended.
    """

    def __init__(self, ctx: TrialContext) -> None:
        self.ctx = ctx
        self.events: list[TriggerEvent] = []
        self.error: Exception | None = None
        self.ended = False
        self._returned = 0
        self._changed = anyio.Event()

    async def next(self) -> TriggerEvent:
        """Return the next event.

        Raises:
            StopAsyncIteration: The trigger ended before.
            TimeoutError: None came within `PATIENCE_SECONDS`.
            Exception: The trigger raised this.
        """
        with _patience("the trigger to fire"):
            while self._returned == len(self.events):
                if self.error is not None:
                    raise self.error
                if self.ended:
                    raise StopAsyncIteration
                await self._changed.wait()
        self._returned += 1
        return self.events[self._returned - 1]

    async def follow(self, trigger: Trigger) -> None:
        """Run a trigger and keep its events."""
        try:
            # Closed even when the test ends first: a trigger releases its resources there.
            async with aclosing(_events(trigger, self.ctx)) as events:
                async for event in events:
                    self.events.append(event)
                    self._notify()
        except Exception as error:  # noqa: BLE001 - `next` raises it in the test
            self.error = error
        self.ended = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def running(
    trigger: Trigger, ctx: TrialContext | None = None
) -> AsyncIterator[RunningTrigger]:
    """Run a trigger beside the block, and close it when that ends, as a triggerer does.

    Args:
        trigger: The trigger.
        ctx: Its context; a TrialContext when left out, so no time is spent waiting.
    """
    run = RunningTrigger(ctx or TrialContext())
    async with anyio.create_task_group() as group:
        group.start_soon(run.follow, trigger)
        yield run
        group.cancel_scope.cancel()


async def first_events(
    trigger: Trigger, count: int = 1, *, ctx: TriggerContext | None = None
) -> list[TriggerEvent]:
    """Run a trigger until it has fired so many times, and return its events.

    Each event is acknowledged before the next one is taken, as a triggerer does.

    Args:
        trigger: The trigger.
        count: Number of events; fewer are returned when the trigger ends before.
        ctx: Its context; a TrialContext when left out, so no time is spent waiting.
    """
    found: list[TriggerEvent] = []
    async with aclosing(_events(trigger, ctx or TrialContext())) as events:
        while len(found) < count:
            try:
                found.append(await anext(events))
            except StopAsyncIteration:
                break
    return found


def round_trip(trigger: AnyTrigger) -> AnyTrigger:
    """Return a trigger after a round trip: encoded, found by its name, decoded and checked.

    Raises:
        DefinitionError: It is not registered, or a field cannot be encoded.
        TriggerError: It cannot decode its own fields.
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

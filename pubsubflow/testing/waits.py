"""What tasks wait for while a DAG runs in this process: virtual time, real triggers, events."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import anyio
import anyio.abc
import msgspec

from pubsubflow.errors import TriggerError
from pubsubflow.model.connections import Connection
from pubsubflow.model.datasets import matches
from pubsubflow.model.expressions import holds
from pubsubflow.model.runs.waits import (
    Happening,
    Wait,
    Waiting,
    begin_wait,
    failure,
    happen,
    outcome,
)
from pubsubflow.model.triggers import TriggerEvent
from pubsubflow.model.wire.messages import EventInfo, Step, TaskError
from pubsubflow.plugins import decode_trigger
from pubsubflow.runner.failures import outcome_of
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.time_skipping import Nap, Pace
from pubsubflow.testing.triggers import TrialContext

_encode = msgspec.msgpack.Encoder().encode
_INSTANT = timedelta(microseconds=1)


class Recorded(msgspec.Struct, frozen=True):
    """An event in the log.

    Attributes:
        at: When it was recorded, in seconds since 1970.
        number: Its place, from 1.
    """

    at: float
    number: int
    info: EventInfo


class Log:
    """The events that are recorded, and those that wait to be asked for.

    Args:
        now: When the run starts.
        consumed: What the run consumed; recorded before it.
        coming: What is to come: at its time, or when a task first waits for it.
    """

    def __init__(
        self, now: datetime, consumed: Sequence[EventInfo], coming: Sequence[EventInfo]
    ) -> None:
        self._events: list[Recorded] = []
        self._listeners: list[Callable[[], None]] = []
        self._at_once = [event for event in coming if event.time <= now]
        self._later = deque(
            sorted((event for event in coming if event.time > now), key=lambda event: event.time)
        )
        before = (now - _INSTANT).timestamp()
        for event in consumed:
            self._events.append(
                Recorded(min(before, event.time.timestamp()), len(self._events) + 1, event)
            )

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: EventInfo, now: datetime) -> None:
        """Record an event and let those look who wait for one."""
        self._events.append(Recorded(now.timestamp(), len(self._events) + 1, event))
        for listener in tuple(self._listeners):
            listener()

    def advance(self, now: datetime) -> datetime | None:
        """Record the events whose time has come, and return when that of the next one does."""
        while self._later and self._later[0].time <= now:
            self.add(self._later.popleft(), now)
        return self._later[0].time if self._later else None

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function whenever an event is recorded."""
        self._listeners.append(listener)

    def leave(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def find(self, wait: Wait, called_at: float, seen: int, now: datetime) -> Recorded | None:
        """Return the first event that a wait counts.

        Args:
            wait: For an event.
            called_at: When the task asked, in seconds since 1970.
            seen: How many events there were then: what was recorded in the same moment, but
                before, does not count.
            now: The time, for those that come when they are asked for.
        """
        while True:
            for event in self._events:
                early = event.number <= seen and event.at == wait.since == called_at
                if early or event.number <= wait.after or event.at < (wait.since or 0.0):
                    continue
                if _meets(wait, event.info):
                    return event
            wanted = next((each for each in self._at_once if _of(wait, each)), None)
            if wanted is None:
                return None
            self._at_once.remove(wanted)
            self.add(wanted, now + _INSTANT)  # others who wait since this moment see it, too


class Pending:
    """One wait of one task.

    Args:
        waiting: What for; its relative times count from now.
        called: When the task asked, in seconds since 1970, and how many events there were.
        pace: Says when time may jump.
        clock: The virtual clock.
        log: Has the events.
        connections: What triggers may ask for.
    """

    def __init__(
        self,
        waiting: Waiting,
        called: tuple[float, int],
        pace: Pace,
        clock: VirtualClock,
        log: Log,
        *,
        connections: Mapping[str, Connection],
    ) -> None:
        self.waiting = begin_wait(waiting, clock.now().timestamp())
        self._called = called
        self._pace = pace
        self._clock = clock
        self._log = log
        self._connections = connections
        self._failed: Step | None = None
        self._nap = Nap()

    async def outcome(self, limit: datetime | None) -> Step | None:
        """Return what came of it; None when the task's time is over first.

        Args:
            limit: When that is.
        """
        found: Step | None = None
        async with anyio.create_task_group() as group:
            self._log.listen(self._look)
            try:
                for slot, wait in enumerate(self.waiting.waits):
                    if wait.kind == "trigger":
                        self._pace.begin()
                        group.start_soon(self._run, slot, wait)
                found = await self._wait(limit)
            finally:
                self._log.leave(self._look)
                group.cancel_scope.cancel()
        return found

    async def _wait(self, limit: datetime | None) -> Step | None:
        while True:
            self._nap = Nap()
            now = self._clock.now()
            next_event = self._log.advance(now)
            self._look()
            for slot, wait in enumerate(self.waiting.waits):
                if wait.due_at is not None and _moment(wait.due_at) <= now:
                    self._happen(Happening(slot))
            found = self._failed or outcome(self.waiting)
            if found is not None:
                return found
            timeout_at = self.waiting.timeout_at
            if timeout_at is not None and _moment(timeout_at) <= now:
                text = f"{self.waiting.label} did not happen in time"
                return failure(self.waiting, TaskError("WaitTimeout", text))
            if limit is not None and limit <= now:
                return None
            moments = [*self._moments(), *filter(None, (limit, next_event))]
            await self._pace.rest(self._nap, min(moments, default=None))

    def _moments(self) -> list[datetime]:
        known = {each.slot for each in self.waiting.happened}
        due = [
            wait.due_at
            for slot, wait in enumerate(self.waiting.waits)
            if wait.due_at is not None and slot not in known
        ]
        return [_moment(each) for each in (*due, self.waiting.timeout_at) if each is not None]

    def _look(self) -> None:
        """Look for events that are waited for."""
        known = {each.slot for each in self.waiting.happened}
        for slot, wait in enumerate(self.waiting.waits):
            if wait.kind == "event" and slot not in known:
                event = self._log.find(wait, *self._called, self._clock.now())
                if event is not None:
                    info = msgspec.Raw(_encode(event.info))
                    self._happen(Happening(slot, info, number=event.number))

    def _happen(self, what: Happening) -> None:
        if outcome(self.waiting) is None:
            self.waiting = happen(self.waiting, what)
            self._pace.wake(self._nap)

    async def _run(self, slot: int, wait: Wait) -> None:
        """Run a trigger until it fires once."""
        try:
            context = PacedContext(self._clock, self._pace, self._connections)
            event = await _first_event(wait, context)
            self._happen(_happening(slot, event))
            if event.acknowledge is not None:
                await event.acknowledge()
        except Exception as error:  # noqa: BLE001 - the task's, as a triggerer tells it
            self._failed = self._failed or failure(self.waiting, outcome_of(error)[1])
            self._pace.wake(self._nap)
        finally:
            self._pace.end()


class PacedContext(TrialContext):
    """A trigger's context on a clock that jumps when nobody is at work."""

    def __init__(
        self, clock: VirtualClock, pace: Pace, connections: Mapping[str, Connection]
    ) -> None:
        super().__init__(clock, connections=connections)
        self._pace = pace

    async def sleep_until(self, moment: datetime) -> None:
        """Return at a moment."""
        await self._pace.rest(Nap(), moment)

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed."""
        await self.sleep_until(self.now() + timedelta(seconds=seconds))


async def _first_event(wait: Wait, context: PacedContext) -> TriggerEvent:
    events = decode_trigger(wait.name, wait.data).run(context)
    try:
        async for event in events:
            return event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
    raise TriggerError("it ended without an event")


def told(waiting: Waiting) -> str:
    """Return for people what a task waits for."""
    names = ", ".join(dict.fromkeys(wait.name for wait in waiting.waits))
    return names if waiting.label in (names, "") else f"{waiting.label} ({names})"


def _happening(slot: int, event: TriggerEvent) -> Happening:
    return Happening(slot, msgspec.Raw(_encode(event.payload)), event.id)


def _of(wait: Wait, event: EventInfo) -> bool:
    return matches(wait.name, event.dataset) if wait.pattern else wait.name == event.dataset


def _meets(wait: Wait, event: EventInfo) -> bool:
    return _of(wait, event) and (wait.where is None or holds(wait.where, event) is None)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)

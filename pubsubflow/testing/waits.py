"""Waits of tasks in an in-process run: on virtual time, real triggers and events."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.abc
import msgspec

from pubsubflow.errors import ConfigError, InvalidInput, TriggerError
from pubsubflow.model.cel.expressions import filter_mismatch
from pubsubflow.model.connection_dags import check_dag
from pubsubflow.model.connections import Connection
from pubsubflow.model.datasets import matches
from pubsubflow.model.runs.approvals import given_answer
from pubsubflow.model.runs.waits import begin_wait, complete_wait, completed_entry, failed_entry
from pubsubflow.model.triggers import TriggerEvent
from pubsubflow.model.wire.approvals import ApprovalSpec, approval_of
from pubsubflow.model.wire.messages import EventInfo, JournalEntry, TaskError
from pubsubflow.model.wire.waits import Wait, WaitCompletion, WaitSet
from pubsubflow.plugins import decode_trigger
from pubsubflow.runner.failures import outcome_of
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.time_skipping import Sleeper, TimeSkipper
from pubsubflow.testing.triggers import TrialContext

_encode = msgspec.msgpack.Encoder().encode
_INSTANT = timedelta(microseconds=1)


class EventLogEntry(msgspec.Struct, frozen=True):
    """An event in the log.

    Attributes:
        at: When it was recorded, in seconds since 1970.
        number: Its number, from 1.
    """

    at: float
    number: int
    info: EventInfo


class RunEventLog:
    """The log of recorded events, and the future events that the test gives.

    Args:
        now: When the run starts.
        consumed: The events that the run consumed; recorded before it.
        future: Further events: recorded at their time, or when a task first waits for them.
    """

    def __init__(
        self, now: datetime, consumed: Sequence[EventInfo], future: Sequence[EventInfo]
    ) -> None:
        self._events: list[EventLogEntry] = []
        self._listeners: list[Callable[[], None]] = []
        self._at_once = [event for event in future if event.time <= now]
        self._later = deque(
            sorted((event for event in future if event.time > now), key=lambda event: event.time)
        )
        # Before the run starts, so that no wait of its tasks counts them.
        before = (now - _INSTANT).timestamp()
        for event in consumed:
            self._events.append(
                EventLogEntry(min(before, event.time.timestamp()), len(self._events) + 1, event)
            )

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: EventInfo, now: datetime) -> None:
        """Record an event and notify the listeners."""
        self._events.append(EventLogEntry(now.timestamp(), len(self._events) + 1, event))
        for listener in tuple(self._listeners):
            listener()

    def advance(self, now: datetime) -> datetime | None:
        """Record the events whose time has come, and return when that of the next one does."""
        while self._later and self._later[0].time <= now:
            self.add(self._later.popleft(), now)
        return self._later[0].time if self._later else None

    def listen(self, listener: Callable[[], None]) -> None:
        """Add a listener, which is called whenever an event is recorded."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)

    def find(self, wait: Wait, called_at: float, seen: int, now: datetime) -> EventLogEntry | None:
        """Return the first event that counts for a wait.

        Args:
            wait: A wait for an event.
            called_at: When the task called, in seconds since 1970.
            seen: The number of events then: earlier events of the same moment do not count.
            now: The time, for future events that are recorded at the first wait for them.
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
            # An instant later than now: tasks that began to wait at this moment get it, too.
            self.add(wanted, now + _INSTANT)


class PendingWait:
    """The present wait of one task.

    Args:
        wait_set: The waits; their relative times count from now.
        called: When the task called, in seconds since 1970, and the number of events then.
        time: Skips time.
        clock: The virtual clock.
        log: The events.
        connections: The connections of the test.
        dag_id: The DAG; its triggers may use those that are for it.
        answers: Question → the answer to an approval.
    """

    def __init__(
        self,
        wait_set: WaitSet,
        called: tuple[float, int],
        time: TimeSkipper,
        clock: VirtualClock,
        log: RunEventLog,
        *,
        connections: Mapping[str, Connection],
        dag_id: str,
        answers: Mapping[str, Any],
    ) -> None:
        self._answers = answers
        self.wait_set = begin_wait(wait_set, clock.now().timestamp())
        self._called = called
        self._time = time
        self._clock = clock
        self._log = log
        self._connections = connections
        self._dag_id = dag_id
        self._failed: JournalEntry | None = None
        self._sleeper = Sleeper()

    async def result(self, limit: datetime | None) -> JournalEntry | None:
        """Return the journal entry of the wait; None when the task's timeout comes first.

        Args:
            limit: The moment of the timeout.
        """
        found: JournalEntry | None = None
        async with anyio.create_task_group() as group:
            self._log.listen(self._find_events)
            try:
                for slot, wait in enumerate(self.wait_set.waits):
                    if wait.kind == "trigger":
                        self._time.start_work()
                        group.start_soon(self._run, slot, wait)
                found = await self._wait(limit)
            finally:
                self._log.remove_listener(self._find_events)
                group.cancel_scope.cancel()
        return found

    async def _wait(self, limit: datetime | None) -> JournalEntry | None:
        while True:
            self._sleeper = Sleeper()
            now = self._clock.now()
            next_event = self._log.advance(now)
            self._find_events()
            for slot, wait in enumerate(self.wait_set.waits):
                if wait.due_at is not None and _moment(wait.due_at) <= now:
                    self._complete(WaitCompletion(slot))
            found = self._failed or completed_entry(self.wait_set)
            if found is not None:
                return found
            timeout_at = self.wait_set.timeout_at
            if timeout_at is not None and _moment(timeout_at) <= now:
                text = f"{self.wait_set.label} did not happen in time"
                return failed_entry(self.wait_set, TaskError("WaitTimeout", text))
            if limit is not None and limit <= now:
                return None
            moments = [*self._moments(), *filter(None, (limit, next_event))]
            await self._time.sleep(self._sleeper, min(moments, default=None))

    def _moments(self) -> list[datetime]:
        known = {each.slot for each in self.wait_set.completions}
        due = [
            wait.due_at
            for slot, wait in enumerate(self.wait_set.waits)
            if wait.due_at is not None and slot not in known
        ]
        return [_moment(each) for each in (*due, self.wait_set.timeout_at) if each is not None]

    def _find_events(self) -> None:
        """Complete the waits whose events are in the log."""
        known = {each.slot for each in self.wait_set.completions}
        for slot, wait in enumerate(self.wait_set.waits):
            if wait.kind != "event" or slot in known:
                continue
            approval = approval_of(wait)
            if approval is not None:
                self._answer(slot, approval)
            else:
                event = self._log.find(wait, *self._called, self._clock.now())
                if event is not None:
                    info = msgspec.Raw(_encode(event.info))
                    self._complete(WaitCompletion(slot, info, number=event.number))

    def _answer(self, slot: int, approval: ApprovalSpec) -> None:
        """Complete the wait of an approval by the answer that the test gives, if it does."""
        given = self._answers.get(approval.title)
        if given is None:
            return
        try:
            info = given_answer(approval, given, self._clock.now())
        except InvalidInput as error:
            self._failed = failed_entry(self.wait_set, outcome_of(error)[1])
        else:
            self._complete(WaitCompletion(slot, msgspec.Raw(_encode(info))))

    def _complete(self, completion: WaitCompletion) -> None:
        if completed_entry(self.wait_set) is None:
            self.wait_set = complete_wait(self.wait_set, completion)
            self._time.wake(self._sleeper)

    async def _run(self, slot: int, wait: Wait) -> None:
        """Run a trigger until it fires once."""
        try:
            context = SkippingContext(self._clock, self._time, self._connections, self._dag_id)
            event = await _first_event(wait, context)
            self._complete(_completion(slot, event))
            if event.acknowledge is not None:
                await event.acknowledge()
        except Exception as error:  # noqa: BLE001 - recorded for the task, as a triggerer does
            self._failed = self._failed or failed_entry(self.wait_set, outcome_of(error)[1])
            self._time.wake(self._sleeper)
        finally:
            self._time.end_work()


class SkippingContext(TrialContext):
    """A trigger's context on a clock that skips time."""

    def __init__(
        self,
        clock: VirtualClock,
        time: TimeSkipper,
        connections: Mapping[str, Connection],
        dag_id: str,
    ) -> None:
        super().__init__(clock, connections=connections)
        self._time = time
        self._dag_id = dag_id

    async def connection(self, name: str) -> Connection:
        """Return a connection that is for the DAG."""
        found = await super().connection(name)
        try:
            check_dag(name, found.dags, self._dag_id)
        except ConfigError as error:
            raise TriggerError(str(error)) from error
        return found

    async def sleep_until(self, moment: datetime) -> None:
        """Return at a moment."""
        await self._time.sleep(Sleeper(), moment)

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed."""
        await self.sleep_until(self.now() + timedelta(seconds=seconds))


async def _first_event(wait: Wait, context: SkippingContext) -> TriggerEvent:
    events = decode_trigger(wait.name, wait.data).run(context)
    try:
        async for event in events:
            return event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
    raise TriggerError("it ended without an event")


def describe_wait(wait_set: WaitSet) -> str:
    """Describe a task's wait for people."""
    names = ", ".join(dict.fromkeys(wait.name for wait in wait_set.waits))
    return names if wait_set.label in (names, "") else f"{wait_set.label} ({names})"


def _completion(slot: int, event: TriggerEvent) -> WaitCompletion:
    return WaitCompletion(slot, msgspec.Raw(_encode(event.payload)), event.id)


def _of(wait: Wait, event: EventInfo) -> bool:
    return matches(wait.name, event.dataset) if wait.pattern else wait.name == event.dataset


def _meets(wait: Wait, event: EventInfo) -> bool:
    return _of(wait, event) and (wait.where is None or filter_mismatch(wait.where, event) is None)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)

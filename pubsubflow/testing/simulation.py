"""Simulation of a schedule: which runs would start, by the code with which the manager decides."""

import heapq
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.errors import InvalidInput
from pubsubflow.manager.schedules.consuming import route
from pubsubflow.manager.schedules.event_params import run_params
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.timers import ScheduleTimers
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, LoggedEvent, RunDraft
from pubsubflow.model.ids import new_id
from pubsubflow.model.schedule.condition_state import ConditionState
from pubsubflow.model.schedule.conditions import ScheduleSpec, ticks
from pubsubflow.model.schedule.timetable import first_tick
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.testing.clock import BEGINNING, VirtualClock
from pubsubflow.testing.events import UndatedEvent
from pubsubflow.testing.run_inputs import read_events

MAX_STEPS = 100_000
_AT_ONCE = timedelta(0)
_INSTANT = timedelta(microseconds=1)


class SimulatedRun(Struct, frozen=True):
    """A run that would start.

    Attributes:
        at: When, on the virtual clock.
        kind: `dataset`, or `cron` for one at a tick.
        cause: One line: why.
        events: What it consumes, in order.
        params: What its tasks would see.
        refused: Why it would not start after all: its params do not fit.
    """

    at: datetime
    kind: str
    cause: str
    events: tuple[DatasetEvent, ...] = ()
    partition: str | None = None
    logical_time: datetime | None = None
    params: dict[str, Any] = {}
    refused: str | None = None


def simulate(
    dag: DAG,
    events: Iterable[Any],
    *,
    clock: VirtualClock | None = None,
    until: datetime | timedelta | None = None,
    lasts: timedelta = _AT_ONCE,
) -> list[SimulatedRun]:
    """Return the runs that would start, and with which events; no task runs.

    Args:
        dag: A DAG with a schedule.
        events: In order: datasets, tuples `(dataset, extra, partition, time)` of which the end may
            be left out, or events such as those of a run's `emitted`; and timedeltas and datetimes,
            to advance the time. An event whose time is still to come arrives at that time.
        clock: Where time begins; by default at the first event that has a time, or at the
            beginning of 2026. Ticks come as it goes on.
        until: When to stop, or how long after the last event. By default when no deadline, no run
            that collects events and no active run is left.
        lasts: How long each run is active.

    Raises:
        InvalidInput: The DAG has no schedule or does not wait for a dataset, something is not
            an event, or too much happens.
    """
    if dag.schedule is None:
        raise InvalidInput(f"DAG {dag.dag_id!r} has no schedule: it runs only on request")
    items = list(events)
    for item in items:
        _check_zone(item)
    clock = clock or VirtualClock(_first_moment(items))
    spec = dag.with_ticks(dag.to_spec("", ""), clock.now())
    simulation = Simulation(spec, spec.schedule or dag.schedule, clock, lasts, most=MAX_STEPS)
    for item in items:
        simulation.receive(item)
    simulation.finish(until)
    return simulation.runs


def _first_moment(items: Sequence[Any]) -> datetime:
    for item in items:
        if isinstance(item, datetime):
            return item
        if isinstance(item, DatasetEvent) and not isinstance(item, UndatedEvent):
            return item.time
        if isinstance(item, tuple | list) and item and isinstance(item[-1], datetime):
            return item[-1]
    return BEGINNING


def _check_zone(item: Any) -> None:
    last = item[-1] if isinstance(item, tuple | list) and item else item
    for moment in (last, getattr(item, "time", None)):
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise InvalidInput(f"events: {moment.isoformat()} needs a zone, as in tzinfo=UTC")


class Simulation:
    """A DAG in memory, and what is due there.

    Its steps are those of the manager: `Scheduler` takes events, `ScheduleTimers` acts on what is
    due, and `LockedDag` counts runs. Only here all conditions are at hand, and nothing is stored.

    Args:
        spec: The DAG.
        schedule: Its schedule.
        clock: Where time begins.
        lasts: How long each run is active.
        most: How many runs, ticks and deadlines there may be.

    Attributes:
        runs: Those that have started.
        dag: What is pending, per partition.
        uow: What became of events that no run consumed.
    """

    def __init__(
        self,
        spec: DagSpec,
        schedule: ScheduleSpec,
        clock: VirtualClock,
        lasts: timedelta,
        *,
        most: int,
    ) -> None:
        self.runs: list[SimulatedRun] = []
        self._spec = spec
        self._schedule = schedule
        self._clock = clock
        self._lasts = lasts
        # The limit on active runs delays runs and never changes which there are.
        version = DagVersion(1, 1, replace(spec, max_active_runs=sys.maxsize))
        self.dag = LockedDag.idle(version)
        self.uow = UnitOfWork(clock.now())
        self._ids = count(1)
        self._scheduler = Scheduler(self.uow, new_id=new_id, allocate_id=partial(next, self._ids))
        self._timers = ScheduleTimers(self.uow, self._scheduler)
        self._order = count()
        self._due: list[tuple[datetime, int, Timer | None]] = []
        self._most = most
        self._steps = 0
        self._made: set[str] = set()
        self._set_ticks()

    def receive(self, item: Any) -> None:
        """Take an event, or advance the time."""
        if isinstance(item, timedelta):
            self._go_to(self._clock.now() + item)
        elif isinstance(item, datetime):
            self._go_to(item)
        else:
            (info,) = read_events(self._spec, (item,), self._clock.now())
            self.receive_event(info)

    def receive_event(self, info: EventInfo) -> None:
        """Take an event, at its time or now if that is past."""
        self._go_to(max(info.time, self._clock.now()))
        event = LoggedEvent(info, min(info.time, self.uow.now), id=next(self._ids))
        self._scheduler.receive_event(route(event, self.dag))
        self._admit()

    def finish(self, until: datetime | timedelta | None) -> None:
        """Advance the time until then, or until nothing is left to happen but ticks."""
        if until is not None:
            self._go_to(self._clock.now() + until if isinstance(until, timedelta) else until)
        while until is None and any(_ends(timer) for _, _, timer in self._due):
            self._go_to(self._due[0][0])

    def waiting(self) -> list[tuple[str, ConditionState]]:
        """Return partition key → state of the conditions in which something is pending.

        The key is empty for a schedule without partitions, whose only condition is always there.
        """
        if self._schedule.partitioning is None:
            return [("", self._scheduler.condition(self.dag, "").state)]
        return [(each.key, each.state) for each in self.dag.open_conditions]

    def pending(self) -> Iterator[tuple[str, int, EventInfo]]:
        """Yield partition key, input and event for all that is pending or collected."""
        for draft in self.uow.schedule.drafts.values():
            for each in draft.events:
                yield draft.condition_key, each.input, each.event.info
        for condition in self.dag.conditions.values():
            for place, events in enumerate(condition.new_events):
                for event in events:
                    yield condition.key, place, event.info

    def next_ticks(self) -> dict[int, datetime]:
        """Return slot of a tick → its next moment."""
        ticking = (timer for _, _, timer in sorted(self._due) if timer and timer.kind == "tick")
        return {timer.node or 0: timer.due_at for timer in ticking}

    def _go_to(self, moment: datetime) -> None:
        """Act on everything that is due until then, in order."""
        while self._due and self._due[0][0] <= moment:
            due, _, timer = heapq.heappop(self._due)
            self._at(due)
            self._act(timer)
            self._admit()
            self._steps += 1
            if self._steps > self._most:
                raise InvalidInput(
                    f"more than {self._most} ticks and deadlines; simulate a shorter time"
                )
        self._at(moment)

    def _at(self, moment: datetime) -> None:
        self._clock.jump(moment)
        self.uow.now = self._clock.now()

    def _act(self, timer: Timer | None) -> None:
        if timer is None:
            self.dag.end_run()
            if self.dag.starts_latest:
                self._scheduler.start_latest(self.dag)
        elif timer.kind == "tick":
            due = self._timers.next_tick(self.dag, timer)
            if due is not None:
                self._timers.tick(self.dag, due, self._made)
        else:
            self._timers.condition_due(self.dag, timer, self._made)

    def _admit(self) -> None:
        """Admit the runs that were made, and note what is due later."""
        drafts = self.uow.schedule.drafts
        for draft in [each for each in drafts.values() if not each.collecting]:
            del drafts[draft.id]
            self._made.add(draft.run_key)
            self.dag.unadmitted -= 1
            self.dag.admit()
            run = self._run(draft)
            self.runs.append(run)
            lasts = self._lasts if run.refused is None else _AT_ONCE
            self._wake_at(self._clock.now() + lasts, None)
        for timer in self.uow.timers:
            self._wake_at(timer.due_at, timer)
        self.uow.timers.clear()

    def _wake_at(self, moment: datetime, timer: Timer | None) -> None:
        heapq.heappush(self._due, (moment, next(self._order), timer))

    def _run(self, draft: RunDraft) -> SimulatedRun:
        known = {each.event.id: each.event.info for each in draft.events}
        events = tuple(info for _, info in sorted(known.items(), key=lambda item: item[0]))
        params: dict[str, Any] = {}
        refused = None
        try:
            params = run_params(draft, events)
        except InvalidInput as error:
            refused = str(error)
        return SimulatedRun(
            self._clock.now(),
            draft.kind,
            draft.cause,
            tuple(map(DatasetEvent.of, events)),
            draft.partition,
            draft.logical_time,
            params,
            refused,
        )

    def _set_ticks(self) -> None:
        spec = self._spec
        since = self._clock.now()
        if spec.catchup and spec.start is not None:
            since = spec.start - _INSTANT
        for part in ticks(self._schedule.condition):
            moment = first_tick(part.timetable, since, spec.start, spec.end)
            if moment is not None:
                self._wake_at(moment, Timer(moment, "tick", self.dag.id, node=part.slot))


def _ends(timer: Timer | None) -> bool:
    """Return whether something comes to an end by itself: all but ticks do."""
    return timer is None or timer.kind != "tick"

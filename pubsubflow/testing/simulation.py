"""Tells which runs a DAG's schedule would start, by the decisions that the manager takes."""

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from msgspec import Struct

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.context import DatasetEvent
from pubsubflow.errors import InvalidInput
from pubsubflow.manager.schedules.cell_keys import WHOLE
from pubsubflow.manager.schedules.firing import Scheduling, find_tick
from pubsubflow.manager.spec_cache import Version
from pubsubflow.manager.unit_of_work import CellWork, GateWork, Ledger, LoggedEvent, Start
from pubsubflow.model.expressions import evaluate
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.schedule.conditions import Latest, Schedule, ticks
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.testing.clock import BEGINNING, VirtualClock
from pubsubflow.testing.run_inputs import read_events

MOST_STEPS = 100_000
_AT_ONCE = timedelta(0)
_INSTANT = timedelta(microseconds=1)
_OPEN = {"dag": 1, "present": True, "paused": False, "active": 0, "queued": 0, "since": None}


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
    """Tell which runs would start with which events; no task runs.

    Args:
        dag: A DAG with a schedule.
        events: In order: datasets, tuples `(dataset, extra, partition, time)` of which the end may
            be left out, or events such as those of a run's `emitted`; and timedeltas and datetimes,
            to let time pass. An event whose time is still to come arrives at that time.
        clock: Where time begins; by default at the first event that has a time, or at the
            beginning of 2026. Ticks come as it goes on.
        until: When to stop, or how long after the last event. By default when no deadline, no run
            that collects events and no active run is left.
        lasts: How long each run is active.

    Raises:
        InvalidInput: The DAG has no schedule or does not wait for a dataset, something is no
            event, or too much happens.
    """
    spec = dag.to_spec("", "")
    if spec.schedule is None:
        raise InvalidInput(f"DAG {spec.dag_id!r} has no schedule: it runs only when asked")
    items = list(events)
    for item in items:
        _check_zone(item)
    clock = clock or VirtualClock(_first_moment(items))
    simulation = _Simulation(spec, spec.schedule, clock, lasts)
    for item in items:
        simulation.take(item)
    simulation.finish(until)
    return simulation.runs


def _first_moment(items: Sequence[Any]) -> datetime:
    for item in items:
        if isinstance(item, datetime):
            return item
        if isinstance(item, DatasetEvent):
            return item.time
        if isinstance(item, tuple | list) and item and isinstance(item[-1], datetime):
            return item[-1]
    return BEGINNING


def _check_zone(item: Any) -> None:
    told = item[-1] if isinstance(item, tuple | list) and item else item
    for moment in (told, getattr(item, "time", None)):
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise InvalidInput(f"events: {moment.isoformat()} needs a zone, as in tzinfo=UTC")


class _Simulation:
    """A DAG's gate in memory, and what is due there."""

    def __init__(
        self, spec: DagSpec, schedule: Schedule, clock: VirtualClock, lasts: timedelta
    ) -> None:
        self.runs: list[SimulatedRun] = []
        self._spec = spec
        self._schedule = schedule
        self._clock = clock
        self._lasts = lasts
        self._gate = GateWork(_OPEN, Version(1, 1, spec))
        self._ledger = Ledger(clock.now())
        self._scheduling = self._anew()
        self._numbers = count(1)
        self._order = count()
        self._due: list[tuple[datetime, int, Timer | None]] = []
        self._steps = 0
        self._set_ticks()

    def take(self, item: Any) -> None:
        """Let an event arrive, or time pass."""
        if isinstance(item, timedelta):
            self._go_to(self._clock.now() + item)
        elif isinstance(item, datetime):
            self._go_to(item)
        else:
            (info,) = read_events(self._spec, (item,), self._clock.now())
            self._go_to(max(info.time, self._clock.now()))
            event = LoggedEvent(new_id(), info, number=next(self._numbers))
            self._scheduling.event(self._gate, event)
            self._settle()

    def finish(self, until: datetime | timedelta | None) -> None:
        """Let time pass until then, or until nothing is left to happen but ticks."""
        if until is not None:
            self._go_to(self._clock.now() + until if isinstance(until, timedelta) else until)
        while until is None and any(_ends(timer) for _, _, timer in self._due):
            self._go_to(self._due[0][0])

    def _go_to(self, moment: datetime) -> None:
        """Let everything happen that is due until then, in order."""
        while self._due and self._due[0][0] <= moment:
            due, _, timer = heapq.heappop(self._due)
            self._at(due)
            self._act(timer)
            self._settle()
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise InvalidInput(
                    f"more than {MOST_STEPS} ticks and deadlines; simulate a shorter time"
                )
        self._at(moment)

    def _at(self, moment: datetime) -> None:
        self._clock.jump(moment)
        self._ledger.now = self._clock.now()
        self._scheduling = self._anew()

    def _anew(self) -> Scheduling:
        return Scheduling(self._ledger, new_id=new_id, take_number=lambda: next(self._numbers))

    def _act(self, timer: Timer | None) -> None:
        gate = self._gate
        if timer is None:
            gate.active -= 1
            self._next_of_latest()
        elif timer.kind == "tick":
            self._tick(timer)
        else:
            cell = gate.cells[timer.cell or WHOLE]
            if timer.kind == "late":
                self._scheduling.late(gate, cell, timer.node or 0)
            else:
                self._scheduling.flush_due(gate, cell)

    def _tick(self, timer: Timer) -> None:
        moment = self._scheduling.tick(self._gate, timer)
        part = find_tick(self._gate, timer.node or 0)
        if moment is None or part is None:
            return
        cells = self._open_cells()
        if self._schedule.partitioning is None:
            cells = [self._scheduling.cell(self._gate, WHOLE)]
        for cell in cells:
            self._scheduling.ticked(self._gate, cell, part.slot, moment)

    def _open_cells(self) -> list[CellWork]:
        return [cell for _, cell in sorted(self._gate.cells.items()) if cell.cell.open]

    def _next_of_latest(self) -> None:
        if not isinstance(self._schedule.policy, Latest) or self._gate.busy:
            return
        for cell in self._open_cells():
            if cell.cell.forming:
                self._scheduling.flush(self._gate, cell)
                return

    def _settle(self) -> None:
        """Let what was decided take effect."""
        for start in [each for each in self._ledger.starts.values() if not each.forming]:
            del self._ledger.starts[start.number]
            self._gate.coming -= 1
            run = self._run(start)
            self.runs.append(run)
            self._gate.active += 1
            lasts = self._lasts if run.refused is None else _AT_ONCE
            self._alarm(self._clock.now() + lasts, None)
        for timer in self._ledger.timers:
            self._alarm(timer.due_at, timer)
        self._ledger.timers.clear()

    def _alarm(self, moment: datetime, timer: Timer | None) -> None:
        heapq.heappush(self._due, (moment, next(self._order), timer))

    def _run(self, start: Start) -> SimulatedRun:
        known = {event.number: event.info for event, _ in start.fresh}
        events = tuple(info for _, info in sorted(known.items(), key=lambda item: item[0]))
        params, refused = {}, None
        try:
            given = None
            if self._spec.params_from and start.kind != "cron":
                given = evaluate(self._spec.params_from, events, start.partition)
            params = validate_params(self._spec, given)
        except InvalidInput as error:
            refused = str(error)
        return SimulatedRun(
            self._clock.now(),
            start.kind,
            start.cause,
            events,
            start.partition,
            start.logical_time,
            params,
            refused,
        )

    def _set_ticks(self) -> None:
        spec = self._spec
        since = self._clock.now()
        if spec.catchup and spec.start is not None:
            since = spec.start - _INSTANT
        for part in ticks(self._schedule.condition):
            moment = next_tick(part.timetable, since, spec.start, spec.end)
            if moment is not None:
                self._alarm(moment, Timer(moment, "tick", self._gate.dag, node=part.slot))


def _ends(timer: Timer | None) -> bool:
    """Return whether something comes to an end by itself: all but ticks do."""
    return timer is None or timer.kind != "tick"

"""Rehearsal of past events: the runs that a schedule would have made of them, in their time.

It begins with nothing pending and before the window in question, so that a window that cuts what
belongs together makes nothing of its own: what is pending at its beginning is pending here, too.
"""

import heapq
from datetime import datetime
from itertools import count

from pubsubflow.manager.schedules.consuming import route
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.timers import ScheduleTimers
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, LoggedEvent, RunDraft
from pubsubflow.model.schedule.conditions import (
    AllOf,
    Condition,
    DatasetInput,
    Each,
    Latest,
    OrAfter,
    ScheduleSpec,
    parts,
)
from pubsubflow.model.wire.commands import Timer


class Rehearsal:
    """A DAG in memory that decides events of the past at the times at which they were recorded.

    Args:
        version: The DAG.
        scheduler: One that works on a unit of work of its own.
        uow: That unit of work.
        since: The beginning of the window: a run of `latest` that began before has ended by then.
    """

    def __init__(
        self, version: DagVersion, scheduler: Scheduler, uow: UnitOfWork, since: datetime
    ) -> None:
        self._uow = uow
        self._scheduler = scheduler
        self._since = since
        self._dag = LockedDag.idle(version)
        self._timers = ScheduleTimers(uow, scheduler)
        self._due: list[tuple[datetime, int, Timer]] = []
        self._order = count()
        schedule = version.schedule
        self._latest = schedule is not None and isinstance(schedule.policy, Latest)

    def receive(self, event: LoggedEvent) -> None:
        """Decide an event."""
        recorded_at = event.recorded_at or self._uow.now
        self.go_to(recorded_at)
        if self._latest and recorded_at < self._since:
            self._end_runs()
        routing = route(event, self._dag)
        if routing.refusal is None:
            self._scheduler.offer(routing)
        self._note_timers()

    def go_to(self, moment: datetime) -> None:
        """Act on the deadlines, and on the ends of collecting, that are due until then."""
        while self._due and self._due[0][0] <= moment:
            due, _, timer = heapq.heappop(self._due)
            self._uow.now = due
            self._timers.condition_due(self._dag, timer)
            self._note_timers()
        self._uow.now = moment

    def _note_timers(self) -> None:
        for timer in self._uow.timers:
            heapq.heappush(self._due, (timer.due_at, next(self._order), timer))
        self._uow.timers.clear()

    def _end_runs(self) -> None:
        for condition in self._dag.conditions.values():
            if condition.state.collecting_run:
                self._scheduler.flush(self._dag, condition)
        self._dag.unadmitted = 0

    def runs(self, since: datetime, until: datetime | None, dataset: str | None) -> list[RunDraft]:
        """Return the runs whose last event was recorded in a window, of one dataset if given."""
        return [
            draft
            for draft in self._uow.schedule.drafts.values()
            if draft.events
            and _in_window(
                max(each.event.recorded_at or since for each in draft.events), since, until
            )
            and (
                dataset is None or any(each.event.info.dataset == dataset for each in draft.events)
            )
        ]


def _in_window(moment: datetime, since: datetime, until: datetime | None) -> bool:
    return since <= moment and (until is None or moment < until)


def needs_past(schedule: ScheduleSpec) -> bool:
    """Whether the runs of events may depend on earlier ones: not where each event is a run."""
    if not isinstance(schedule.policy, Each):
        return True
    if schedule.partitioning is not None and schedule.partitioning.runs_once:
        return True
    return any(_waits(part) for part in parts(schedule.condition))


def _waits(part: Condition) -> bool:
    if isinstance(part, DatasetInput):
        # How old an event may be is counted from the latest one that was seen.
        return part.at_least > 1 or part.within_seconds is not None
    return isinstance(part, AllOf | OrAfter)

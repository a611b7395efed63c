"""Plans of backfills: which runs there are to be, in which order, and which of them to make now.

A plan is a rule, not a list: timetables and bounds as they were when the backfill was requested.
Its moments are found anew from wherever the backfill stands, so a plan of any length is one row.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import merge
from itertools import groupby, islice

from msgspec import Struct

from pubsubflow.model.schedule.conditions import ScheduleSpec, ticks
from pubsubflow.model.schedule.timetable import Timetable, ticks_between
from pubsubflow.model.stored.values import StoredDecoder

MAX_PLANNED_RUNS = 100_000
MAX_ACTIVE_RUNS = 1000
_FIRST_WINDOW = timedelta(minutes=10)
_MOMENT = timedelta(microseconds=1)


class BackfillState(StrEnum):
    """The state of a backfill.

    It is `completed` when all of its plan is decided and no run of it is left, and `cancelled` when
    people have said that it makes no more.
    """

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Reprocess(StrEnum):
    """Which of the planned runs are made: those that are missing, failed ones too, or all."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"

    def makes(self, done: bool | None) -> bool:  # noqa: FBT001 - a state, not an option
        """Whether a run is made.

        Args:
            done: Whether the last run there did its work, or is about to; None without one.
        """
        if done is None or self is Reprocess.ALL:
            return True
        return self is Reprocess.FAILED and not done


class PlannedTick(Struct, frozen=True):
    """A planned run of a tick.

    Attributes:
        moment: The tick, which is the logical time of the run.
    """

    moment: datetime

    @property
    def run_key(self) -> str:
        """The key under which the run exists once; the schedule gives it the same."""
        return f"tick:{self.moment.isoformat()}"

    @property
    def logical_time(self) -> datetime | None:
        """The logical time of the run."""
        return self.moment

    @property
    def partition(self) -> str | None:
        """The partition of the run: none."""
        return None

    @property
    def cause(self) -> str:
        """Why the run exists: one line for people."""
        return f"backfill of {self.run_key.removeprefix('tick:')}"


class PlannedPartition(Struct, frozen=True):
    """A planned run of a partition.

    Attributes:
        key: The partition.
    """

    key: str

    @property
    def run_key(self) -> str:
        """The key under which the run exists once, where a partition has one run."""
        return f"partition:{self.key}:1"

    @property
    def logical_time(self) -> datetime | None:
        """The logical time of the run: none."""
        return None

    @property
    def partition(self) -> str | None:
        """The partition of the run."""
        return self.key

    @property
    def cause(self) -> str:
        """Why the run exists: one line for people."""
        return f"backfill of partition {self.key}"


Planned = PlannedTick | PlannedPartition


class TickPlan(Struct, frozen=True, array_like=True):
    """The ticks of a backfill.

    Attributes:
        timetables: Those of the schedule when the backfill was requested.
        since, until: Its bounds; `until` is exclusive.
        start, end: Those of the DAG.
        newest_first: Whether the latest tick comes first.
    """

    timetables: tuple[Timetable, ...]
    since: datetime
    until: datetime
    start: datetime | None = None
    end: datetime | None = None
    newest_first: bool = False

    def moments(self) -> Iterator[datetime]:
        """Yield all ticks, each once, the oldest first."""
        return self._between(self.since, self.until)

    def take(self, reached: datetime | None, count: int) -> list[datetime]:
        """Return the next ticks of the plan.

        Args:
            reached: The last one before them; None for the first.
            count: How many at most.
        """
        if not self.newest_first:
            since = self.since if reached is None else reached + _MOMENT
            return list(islice(self._between(since, self.until), count))
        return self._last(self.until if reached is None else reached, count)

    def _last(self, until: datetime, count: int) -> list[datetime]:
        """Return the last ticks before a moment, the latest first; the search goes backwards."""
        window = _FIRST_WINDOW
        while True:
            since = until - window if until - self.since > window else self.since
            found = list(self._between(since, until))
            if len(found) >= count or since == self.since:
                return found[-count:][::-1]
            # Enough at the density found so far, and never more than some times too many.
            window *= min(8, max(2, -(-count // max(1, len(found)))))

    def _between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        found = merge(
            *(ticks_between(each, since, until, self.start, self.end) for each in self.timetables)
        )
        return (moment for moment, _ in groupby(found))


class PartitionPlan(Struct, frozen=True):
    """The partitions of a backfill, which are kept beside it.

    Attributes:
        count: How many there are.
        newest_first: Whether the last one given comes first.
    """

    count: int
    newest_first: bool = False

    def bounds(self, taken: int, count: int) -> tuple[int, int]:
        """Return from which to which partition the next ones go, from 1 on, both included."""
        count = min(count, self.count - taken)
        if self.newest_first:
            return self.count - taken - count + 1, self.count - taken
        return taken + 1, taken + count

    def ordered(self, keys: Sequence[str]) -> list[str]:
        """Return partitions, read from the first to the last, in the order of the plan."""
        return list(reversed(keys)) if self.newest_first else list(keys)


def tick_plan(
    schedule: ScheduleSpec | None,
    since: datetime,
    until: datetime,
    *,
    start: datetime | None,
    end: datetime | None,
    newest_first: bool,
) -> TickPlan | None:
    """Return the plan for the ticks of a schedule; None if it has none."""
    timetables = tuple(each.timetable for each in ticks(schedule.condition)) if schedule else ()
    if not timetables:
        return None
    return TickPlan(timetables, since, until, start, end, newest_first)


def room_for(own_limit: int | None, active: int, *, limit: int, others: int, waiting: int) -> int:
    """Return how many runs a backfill may make now.

    Args:
        own_limit: How many of its runs may be active, apart from those of the DAG; None if they
            count as the DAG's.
        active: How many of its runs are active.
        limit: `max_active_runs` of the DAG.
        others: Active runs that count against that, those of the backfill included if they do.
        waiting: Runs that wait for that already: they were first.
    """
    if own_limit is not None:
        return max(0, own_limit - active)
    return 0 if waiting else max(0, limit - others)


STORED_PLAN = StoredDecoder(TickPlan, "the plan of a backfill")

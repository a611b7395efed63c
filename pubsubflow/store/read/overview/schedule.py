"""Schedules: the next ticks of a DAG, and the runs of the last ones."""

import heapq
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from pubsubflow.errors import NotFound
from pubsubflow.model.api.overviews.runs import PastTickView, ScheduleView, TickView
from pubsubflow.model.schedule.conditions import Tick, describe, ticks
from pubsubflow.model.schedule.timetable import OnceSpec, next_tick
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag, schedule_text
from pubsubflow.store.specs import SpecReader

LOOKED_AT = 1000


class ReadSchedules:
    """Queries about the ticks of DAGs."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def schedule(self, dag_id: str, *, now: datetime, count: int) -> ScheduleView:
        """Return the next and the last ticks of a DAG.

        Args:
            dag_id: The DAG.
            now: Ticks after it are the next ones.
            count: How many of each at most.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.search() as connection:
            dag = await find_dag(connection, dag_id)
            row = await connection.fetchrow(SQL["read_dags"], [dag])
            if row is None:
                raise NotFound("DAG", dag_id)
            spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
            runs = await connection.fetch(SQL["page_tick_runs"], dag, LOOKED_AT, count)
        return ScheduleView(
            dag_id=dag_id,
            schedule=schedule_text(spec),
            paused=row["paused"],
            upcoming=list(islice(upcoming_ticks(spec, now), count)) if row["present"] else [],
            past=[
                PastTickView(
                    run_id=str(run["run_id"]),
                    state=run["state"],
                    created_at=run["created_at"],
                    ended_at=run["ended_at"],
                    logical_time=run["logical_time"],
                    late_seconds=None
                    if run["logical_time"] is None
                    else (run["created_at"] - run["logical_time"]).total_seconds(),
                )
                for run in runs
            ],
        )


def upcoming_ticks(spec: DagSpec, now: datetime) -> Iterator[TickView]:
    """Yield the ticks of a DAG's timetables after a moment, in order; perhaps without end."""
    if spec.schedule is None:
        return iter(())
    parts = [_ticks_of(part, spec, now) for part in ticks(spec.schedule.condition)]
    return heapq.merge(*parts, key=lambda tick: tick.at)


def _ticks_of(part: Tick, spec: DagSpec, now: datetime) -> Iterator[TickView]:
    at = next_tick(part.timetable, now, spec.start, spec.end)
    while at is not None:
        yield TickView(at=at, timetable=describe(part))
        # The one tick of @once without a start came when the schedule did.
        once = isinstance(part.timetable, OnceSpec)
        at = None if once else next_tick(part.timetable, at, spec.start, spec.end)

"""Runs and the events that caused them, read for the API."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import asdict, replace

from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import (
    ConsumedEventView,
    ExplainedRun,
    Explanation,
    started_by,
    whole_ancestry,
)
from pubsubflow.model.api.resources import (
    NOT_STARTED,
    Page,
    RunDetail,
    RunView,
)
from pubsubflow.model.runs.filters import RunFilter
from pubsubflow.model.runs.states import RunState
from pubsubflow.store.alerts.call_views import read_callbacks
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.datasets import FoundEvent, read_events
from pubsubflow.store.read.runs.run_limits import describe_queued
from pubsubflow.store.read.runs.run_pages import find_page
from pubsubflow.store.read.task_waits import describe_waits
from pubsubflow.store.specs import SpecReader

EVENTS_A_RUN = 100
EXPLAINED_RUNS = 500
EXPLAINED_DEPTH = 100


class FoundRun(Struct, frozen=True):
    """A run with its internal ids.

    Attributes:
        number: Its id.
        version: Id of the DAG version that it runs.
    """

    number: int
    version: int
    view: RunView


class ReadRuns:
    """Queries about runs."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self, chosen: RunFilter, *, limit: int, after: UUID | None = None
    ) -> Page[RunView]:
        """Return runs, newest first.

        A search for what is rare goes through 20,000 runs at a time: such a page may be short, or
        empty, although the list goes on.

        Args:
            chosen: Which runs.
            limit: Number of runs at most.
            after: The `next` of the page before.

        Raises:
            NotFound: The DAG does not exist.
        """
        async with self._database.search() as connection:
            page = await find_page(connection, self._specs, chosen, limit=limit, after=after)
            items = [run.view for run in await read_runs(connection, page.ids)]
        if len(items) == limit:
            return Page(items, items[-1].run_id)
        return Page(items, None if page.end is None else str(page.end))

    async def briefs(self, run_ids: Sequence[UUID]) -> list[RunView]:
        """Return those of some runs that exist, newest first."""
        async with self._database.connection() as connection:
            known = await connection.fetch(SQL["find_runs"], list(run_ids))
            return [run.view for run in await read_runs(connection, [row["id"] for row in known])]

    async def get(self, run_id: UUID) -> RunDetail:
        """Return a run and the number of its tasks by state.

        Raises:
            NotFound: No run has this id.
        """
        async with self._database.connection() as connection:
            found = await find_run(connection, run_id)
            rows = await connection.fetch(SQL["count_run_tasks"], found.number)
            callbacks = await read_callbacks(connection, found.number)
            specs = await self._specs.load(connection, [found.version])
            waits_for = None
            if found.view.state == RunState.QUEUED:
                waits = await describe_queued(connection, self._specs, found.number)
                waits_for = ", ".join(waits) or None
        tasks: dict[str, int] = {}
        for row in rows:
            tasks[row["state"]] = tasks.get(row["state"], 0) + row["instances"]
        waiting = len(specs[found.version].tasks) - len({row["node"] for row in rows})
        if waiting:
            tasks[NOT_STARTED] = waiting
        return RunDetail(
            **asdict(found.view), tasks=tasks, callbacks=callbacks, waits_for=waits_for
        )

    async def brief(self, run_id: UUID) -> FoundRun:
        """Return a run without its tasks.

        Raises:
            NotFound: No run has this id.
        """
        async with self._database.connection() as connection:
            return await find_run(connection, run_id)

    async def explain(self, run_id: UUID) -> Explanation:
        """Return the events that a run consumed, the runs that emitted these, and so on backwards.

        Raises:
            NotFound: No run has this id.
        """
        async with self._database.connection() as connection:
            level = [await find_run(connection, run_id)]
            ancestries: dict[str, tuple[int, ...]] = {}
            steps: list[ExplainedRun] = []
            seen: set[int] = set()
            complete = True
            for depth in range(EXPLAINED_DEPTH):
                seen.update(run.number for run in level)
                explained, found = await self._explain_level(connection, level, depth)
                explained, starters = await _find_starting_runs(connection, explained)
                steps.extend(explained)
                ancestries |= _ancestries(explained, found)
                emitters = {event.run for event in found.values() if event.run is not None}
                missing = sorted((emitters | set(starters)) - seen)
                shown = missing[: EXPLAINED_RUNS - len(seen)]
                complete = complete and len(shown) == len(missing)
                level = await read_runs(connection, shown) if shown else []
                if not level:
                    break
            else:
                complete = False
            numbers = sorted({number for each in ancestries.values() for number in each})
            names = await connection.fetch(SQL["read_dag_ids"], numbers)
            waits = await self._waits(connection, run_id)
        named = {row["id"]: row["dag_id"] for row in names}
        return Explanation(
            run_id=str(run_id),
            runs=steps,
            ancestry=whole_ancestry(
                steps, {run: [named[each] for each in dags] for run, dags in ancestries.items()}
            ),
            waits=waits,
            complete=complete,
        )

    async def _waits(self, connection: Connection, run_id: UUID) -> list[str]:
        """Return what a run, or its tasks, wait for."""
        run = await find_run(connection, run_id)
        if run.view.state == RunState.QUEUED:
            found = await describe_queued(connection, self._specs, run.number)
            return [f"it waits for {each}" for each in found]
        specs = await self._specs.load(connection, [run.version])
        return await describe_waits(connection, run.number, specs[run.version])

    async def _explain_level(
        self, connection: Connection, level: list[FoundRun], depth: int
    ) -> tuple[list[ExplainedRun], dict[str, FoundEvent]]:
        """Return runs with the events that they consumed, and those events."""
        consumed: dict[int, list[tuple[int, list[int]]]] = {run.number: [] for run in level}
        rows = await connection.fetch(SQL["read_consumed"], sorted(consumed), EVENTS_A_RUN + 1)
        for row in rows:
            consumed[row["run"]].append((row["event"], row["inputs"]))
        shown = {number for each in consumed.values() for number, _ in each[:EVENTS_A_RUN]}
        ids = sorted(shown)
        events = await read_events(connection, self._specs, ids) if ids else {}
        steps = [
            ExplainedRun(
                run=run.view,
                depth=depth,
                events=_present(consumed[run.number][:EVENTS_A_RUN], events),
                more_events=len(consumed[run.number]) > EVENTS_A_RUN,
                pruned_events=sum(
                    event not in events for event, _ in consumed[run.number][:EVENTS_A_RUN]
                ),
                started_by=started_by(run.view),
            )
            for run in level
        ]
        return steps, {found.view.event_id: found for found in events.values()}


def _ancestries(
    steps: Iterable[ExplainedRun], events: Mapping[str, FoundEvent]
) -> dict[str, tuple[int, ...]]:
    """Return run → the DAGs that led to its events, along the longest path."""
    return {
        step.run.run_id: max(
            (events[each.event_id].ancestry for each in step.events), key=len, default=()
        )
        for step in steps
    }


def _present(
    consumed: Iterable[tuple[int, list[int]]], events: dict[int, FoundEvent]
) -> list[ConsumedEventView]:
    """Return events in order, without those that retention has removed."""
    return [
        ConsumedEventView(
            **asdict(events[event].view),
            places=indexes,
            hops=len(events[event].ancestry),
            pruned=events[event].run is not None and events[event].view.run_id is None,
        )
        for event, indexes in consumed
        if event in events
    ]


async def _find_starting_runs(
    connection: Connection, steps: Sequence[ExplainedRun]
) -> tuple[list[ExplainedRun], list[int]]:
    """Return steps with what started them, and the numbers of the runs that did."""
    wanted = {each.started_by.run_id for each in steps if each.started_by is not None}
    if not wanted:
        return list(steps), []
    rows = await connection.fetch(SQL["read_run_numbers"], [UUID(each) for each in sorted(wanted)])
    known = {str(row["run_id"]) for row in rows}
    found = [
        replace(step, started_by=replace(step.started_by, pruned=True))
        if step.started_by is not None and step.started_by.run_id not in known
        else step
        for step in steps
    ]
    return found, [row["id"] for row in rows]


async def find_run(connection: Connection, run_id: UUID) -> FoundRun:
    """Return a run.

    Raises:
        NotFound: No run has this id.
    """
    known = await connection.fetch(SQL["find_runs"], [run_id])
    found = await read_runs(connection, [row["id"] for row in known])
    if not found:
        raise NotFound("run", str(run_id))
    return found[0]


async def read_runs(connection: Connection, ids: list[int]) -> list[FoundRun]:
    """Return runs by their ids, newest first."""
    rows = await connection.fetch(SQL["read_runs"], ids)
    return [FoundRun(row["id"], row["version"], _view(row)) for row in rows]


def _view(row: asyncpg.Record) -> RunView:
    return RunView(
        run_id=str(row["run_id"]),
        dag_id=row["dag_id"],
        state=row["state"],
        kind=row["kind"],
        cause=row["cause"],
        version=row["number"],
        run_key=row["run_key"],
        params=row["params"],
        logical_time=row["logical_time"],
        partition=row["partition"],
        error=row["error"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        cleared=row["clear_number"],
        tags=tuple(row["tags"]),
        note=row["note"],
    )

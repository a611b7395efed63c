"""What people ask about runs, and why each exists."""

from collections.abc import Iterable
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import asdict

from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import ConsumedEvent, ExplainedRun, Explanation
from pubsubflow.model.api.resources import (
    NOT_STARTED,
    Page,
    RunDetail,
    RunView,
)
from pubsubflow.model.runs.states import RunState
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.datasets import FoundEvent, read_events
from pubsubflow.store.specs import Specs

SCANNED_RUNS = 20_000
EVENTS_A_RUN = 100
EXPLAINED_RUNS = 500
EXPLAINED_DEPTH = 100
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)
_LIVE = {RunState.RUNNING: "page_running_runs", RunState.QUEUED: "page_queued_runs"}


class FoundRun(Struct, frozen=True):
    """A run as the store knows it.

    Attributes:
        number: Its number inside.
        version: Number of the version that it runs.
    """

    number: int
    version: int
    view: RunView


class ReadRuns:
    """Queries about runs."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self,
        *,
        limit: int,
        dag_id: str | None = None,
        state: RunState | None = None,
        after: UUID | None = None,
    ) -> Page[RunView]:
        """Return runs, the newest first.

        Runs that have ended in a rare state are looked for in 20,000 runs at a time: such a page
        may be short, or empty, although the list goes on.

        Args:
            limit: Number of runs at most.
            dag_id: Only those of this DAG.
            state: Only those in this state now.
            after: The `next` of the page before.

        Raises:
            NotFound: There is no such DAG.
        """
        before = after or _LAST
        async with self._database.connection() as connection:
            dag = None if dag_id is None else await find_dag(connection, dag_id)
            if state in _LIVE:
                end = None
                rows = await connection.fetch(SQL[_LIVE[state]], before, dag, limit)
            else:
                end = await _scan_end(connection, state, before, dag)
                query, *more = ("page_runs",) if dag is None else ("page_dag_runs", dag)
                rows = await connection.fetch(
                    SQL[query], before, end or _FIRST, state, limit, *more
                )
            items = [run.view for run in await read_runs(connection, [row["id"] for row in rows])]
        if len(items) == limit:
            return Page(items, items[-1].run_id)
        return Page(items, None if end is None else str(end))

    async def get(self, run_id: UUID) -> RunDetail:
        """Return a run and where its tasks stand.

        Raises:
            NotFound: There is none by that id.
        """
        async with self._database.connection() as connection:
            found = await find_run(connection, run_id)
            rows = await connection.fetch(SQL["count_run_tasks"], found.number)
            specs = await self._specs.load(connection, [found.version])
        tasks: dict[str, int] = {}
        for row in rows:
            tasks[row["state"]] = tasks.get(row["state"], 0) + row["instances"]
        waiting = len(specs[found.version].tasks) - len({row["node"] for row in rows})
        if waiting:
            tasks[NOT_STARTED] = waiting
        return RunDetail(**asdict(found.view), tasks=tasks)

    async def brief(self, run_id: UUID) -> FoundRun:
        """Return a run without its tasks.

        Raises:
            NotFound: There is none by that id.
        """
        async with self._database.connection() as connection:
            return await find_run(connection, run_id)

    async def explain(self, run_id: UUID) -> Explanation:
        """Return the events that a run consumed, the runs that emitted them, and so on, back.

        Raises:
            NotFound: There is none by that id.
        """
        async with self._database.connection() as connection:
            level = [await find_run(connection, run_id)]
            trail: tuple[int, ...] = ()
            steps: list[ExplainedRun] = []
            seen: set[int] = set()
            complete = True
            for depth in range(EXPLAINED_DEPTH):
                seen.update(run.number for run in level)
                explained, found = await self._explain_level(connection, level, depth)
                steps.extend(explained)
                if not depth:
                    trail = max((event.trail for event in found), key=len, default=())
                missing = sorted({event.run for event in found if event.run is not None} - seen)
                room = EXPLAINED_RUNS - len(seen)
                complete = complete and len(missing) <= room
                level = await read_runs(connection, missing[:room]) if missing[:room] else []
                if not level:
                    break
            else:
                complete = False
            names = await connection.fetch(SQL["name_dags"], sorted(set(trail)))
        named = {row["id"]: row["dag_id"] for row in names}
        return Explanation(
            run_id=str(run_id),
            runs=steps,
            trail=[named[number] for number in trail],
            complete=complete,
        )

    async def _explain_level(
        self, connection: Connection, level: list[FoundRun], depth: int
    ) -> tuple[list[ExplainedRun], list[FoundEvent]]:
        """Return runs with what they consumed, and those events."""
        consumed: dict[int, list[tuple[int, list[int]]]] = {run.number: [] for run in level}
        rows = await connection.fetch(SQL["read_consumed"], sorted(consumed), EVENTS_A_RUN + 1)
        for row in rows:
            consumed[row["run"]].append((row["event"], row["places"]))
        shown = {number for each in consumed.values() for number, _ in each[:EVENTS_A_RUN]}
        numbers = sorted(shown)
        events = await read_events(connection, self._specs, numbers) if numbers else {}
        steps = [
            ExplainedRun(
                run=run.view,
                depth=depth,
                events=_present(consumed[run.number][:EVENTS_A_RUN], events),
                more_events=len(consumed[run.number]) > EVENTS_A_RUN,
            )
            for run in level
        ]
        return steps, list(events.values())


def _present(
    consumed: Iterable[tuple[int, list[int]]], events: dict[int, FoundEvent]
) -> list[ConsumedEvent]:
    """Return events in their order, without those that retention has removed."""
    return [
        ConsumedEvent(**asdict(events[number].view), places=places, hops=len(events[number].trail))
        for number, places in consumed
        if number in events
    ]


async def find_run(connection: Connection, run_id: UUID) -> FoundRun:
    """Return a run.

    Raises:
        NotFound: There is none by that id.
    """
    known = await connection.fetch(SQL["find_runs"], [run_id])
    found = await read_runs(connection, [row["id"] for row in known])
    if not found:
        raise NotFound("run", str(run_id))
    return found[0]


async def read_runs(connection: Connection, numbers: list[int]) -> list[FoundRun]:
    """Return runs by their numbers, newest first."""
    rows = await connection.fetch(SQL["read_runs"], numbers)
    return [FoundRun(row["id"], row["version"], _view(row)) for row in rows]


async def _scan_end(
    connection: Connection, state: RunState | None, before: UUID, dag: int | None
) -> UUID | None:
    """Return the run where a search for a state stops; None when it goes to the end."""
    if state is None:
        return None
    query, *more = ("find_scan_end",) if dag is None else ("find_dag_scan_end", dag)
    end: UUID | None = await connection.fetchval(SQL[query], before, SCANNED_RUNS, *more)
    return end


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
        cleared=row["cleared"],
    )

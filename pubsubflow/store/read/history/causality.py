"""Causes and effects of runs and events, read for the API."""

from collections.abc import Mapping
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from pubsubflow.model.api.explain import started_by
from pubsubflow.model.api.history.causality import (
    CausalTrace,
    OutcomeCount,
    TracedEvent,
    TracedRun,
    TracedTask,
    TraceLink,
)
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.commands import STARTED_BY_TASK
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.checks.holds import read_holds
from pubsubflow.store.read.datasets import find_event_number
from pubsubflow.store.read.history.causal_walk import CausalWalk, TaskFocus, level_of
from pubsubflow.store.read.runs.runs import FoundRun, find_run
from pubsubflow.store.read.tasks import FoundTask
from pubsubflow.store.specs import SpecReader

_OUTCOMES_LOOKED_AT = 1000
_NAMED_DAGS = 5
_COUNTED, _COUNTED_OF_MANY, _FEW_NODES = 10_000, 1000, 60
_TaskKey = tuple[int, int, int]


class ReadCausality:
    """Queries about what led to what."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def of_run(
        self, run_id: UUID, *, causes: int, effects: int, breadth: int, skip: int = 0
    ) -> CausalTrace:
        """Return the causes and effects of a run.

        Args:
            run_id: The run.
            causes: How many steps back.
            effects: How many steps on.
            breadth: How many causes, or effects, of one node at most.
            skip: How many of those of the run itself are left out.

        Raises:
            NotFound: No run has this id.
        """
        async with self._database.search() as connection:
            run = await find_run(connection, run_id)
            walk = CausalWalk(breadth, skip)
            return await self._of_run(connection, run, walk, causes, effects)

    async def of_task(
        self, task: FoundTask, *, causes: int, effects: int, breadth: int, skip: int = 0
    ) -> CausalTrace:
        """Return the causes of a task's run, and the effects of the task; see `of_run`.

        Of a mapped task without an index: those of all its instances.
        """
        name = task.task_spec.task_id
        index = task.map_index if task.map_index >= 0 or not task.task_spec.mapped else None
        focus = TaskFocus(task.node, index, f"{STARTED_BY_TASK}{name} of ")
        async with self._database.search() as connection:
            walk = CausalWalk(breadth, skip, focus)
            trace = await self._of_run(connection, task.run, walk, causes, effects)
            key = (task.run.number, task.node, task.map_index)
            rows = await _read_tasks(connection, [key])
        return replace(trace, task=_task(name, key, rows))

    async def of_event(
        self, event_id: UUID, *, causes: int, effects: int, breadth: int, skip: int = 0
    ) -> CausalTrace:
        """Return the causes and effects of an event; see `of_run`.

        Raises:
            NotFound: No event has this id, or it was pruned.
        """
        async with self._database.search() as connection:
            number = await find_event_number(connection, event_id)
            walk, start = CausalWalk(breadth, skip), level_of(event=number)
            walk.events[number] = 0
            await walk.backwards(connection, start, causes)
            await walk.forwards(connection, start, effects)
            runs, events = await self._present(connection, walk)
        return _trace("event", str(event_id), walk, runs, events)

    async def _of_run(
        self, connection: Connection, run: FoundRun, walk: CausalWalk, causes: int, effects: int
    ) -> CausalTrace:
        walk.runs[run.number], walk.found[run.number] = 0, run
        start = level_of(run=run.number)
        await walk.backwards(connection, start, causes)
        await walk.forwards(connection, start, effects)
        runs, events = await self._present(connection, walk)
        return _trace("run", run.view.run_id, walk, runs, events)

    async def _present(
        self, connection: Connection, walk: CausalWalk
    ) -> tuple[dict[int, TracedRun], dict[int, TracedEvent]]:
        """Return the nodes of a walk with their times and counts."""
        rows = await connection.fetch(SQL["read_traced_events"], sorted(walk.events))
        versions = {row["version"] for row in rows} | {run.version for run in walk.found.values()}
        specs = await self._specs.load(connection, versions)
        holds = await read_holds(connection, [row for row in rows if row["held"]])
        starters = _starters(walk, specs)
        emitted = {
            (row["run"], row["node"], row["map_index"]) for row in rows if row["run"] is not None
        }
        tasks = await _read_tasks(connection, sorted({*emitted, *starters.values()}))
        events = await _present_events(connection, walk, rows, (specs, holds, tasks))
        return await _present_runs(connection, walk, starters, tasks, set(events)), events


def _starters(walk: CausalWalk, specs: Mapping[int, DagSpec]) -> dict[int, _TaskKey]:
    """Return run → the task that started it, of those whose starter is in the trace."""
    numbers = {run.view.run_id: number for number, run in walk.found.items()}
    found = {}
    for number, run in walk.found.items():
        starter = started_by(run.view)
        if starter is None or starter.run_id not in numbers:
            continue
        by = walk.found[numbers[starter.run_id]]
        # A cause names no map index: of a mapped task the times stay unknown.
        for task in specs[by.version].tasks:
            if task.task_id == starter.task_id:
                found[number] = (by.number, task.node, NOT_MAPPED)
    return found


async def _read_tasks(
    connection: Connection, keys: list[_TaskKey]
) -> dict[_TaskKey, asyncpg.Record]:
    if not keys:
        return {}
    rows = await connection.fetch(SQL["read_traced_tasks"], *map(list, zip(*keys, strict=True)))
    return {(row["run"], row["node"], row["map_index"]): row for row in rows}


def _task(name: str, key: _TaskKey, rows: Mapping[_TaskKey, asyncpg.Record]) -> TracedTask:
    index = None if key[2] == NOT_MAPPED else key[2]
    row = rows.get(key)
    if row is None:
        return TracedTask(task_id=name, map_index=index)
    return TracedTask(
        task_id=name,
        map_index=index,
        state=row["state"],
        attempt=row["attempt"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


async def _present_events(
    connection: Connection,
    walk: CausalWalk,
    rows: list[asyncpg.Record],
    known: tuple[Mapping[int, DagSpec], Mapping[int, str], Mapping[_TaskKey, asyncpg.Record]],
) -> dict[int, TracedEvent]:
    specs, holds, tasks = known
    numbers = [row["id"] for row in rows]
    consumers: dict[int, dict[str, int]] = {number: {} for number in numbers}
    outcomes: dict[int, dict[str, OutcomeCount]] = {number: {} for number in numbers}
    if numbers:
        for row in await connection.fetch(SQL["count_consuming_runs"], numbers, counted_of(walk)):
            consumers[row["event"]][row["state"]] = row["number"]
        query = SQL["read_traced_outcomes"]
        for row in await connection.fetch(query, numbers, _OUTCOMES_LOOKED_AT, _NAMED_DAGS):
            of_event, outcome = outcomes[row["event"]], row["outcome"]
            if outcome not in of_event:
                of_event[outcome] = OutcomeCount(
                    outcome=outcome, count=row["total"], dags=[], reason=row["reason"]
                )
            of_event[outcome].dags.append(row["dag_id"])
    return {
        row["id"]: _event(row, walk, specs, tasks, holds.get(row["id"]), consumers, outcomes)
        for row in rows
    }


def _event(
    row: asyncpg.Record,
    walk: CausalWalk,
    specs: Mapping[int, DagSpec],
    tasks: Mapping[_TaskKey, asyncpg.Record],
    held: str | None,
    consumers: Mapping[int, dict[str, int]],
    outcomes: Mapping[int, dict[str, OutcomeCount]],
) -> TracedEvent:
    spec, task = specs.get(row["version"]), None
    if spec is not None and row["node"] is not None:
        key = (row["run"], row["node"], row["map_index"])
        task = _task(spec.tasks[row["node"]].task_id, key, tasks)
    return TracedEvent(
        event_id=str(row["event_id"]),
        dataset=row["uri"],
        hops=walk.events[row["id"]],
        partition=row["partition"],
        time=row["time"],
        recorded_at=row["recorded_at"],
        source=row["source"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        dag_id=row["dag_id"],
        task=task,
        pruned=row["run"] is not None and row["run_id"] is None,
        held=held,
        consumers=consumers[row["id"]],
        outcomes=list(outcomes[row["id"]].values()),
    )


async def _present_runs(
    connection: Connection,
    walk: CausalWalk,
    starters: Mapping[int, _TaskKey],
    tasks: Mapping[_TaskKey, asyncpg.Record],
    events: set[int],
) -> dict[int, TracedRun]:
    numbers = [number for number in walk.runs if number in walk.found]
    ids, counted = walk.ids(numbers), counted_of(walk)
    counts = {}
    for name, arguments in {
        "count_consumed_of_runs": (numbers, counted_of(walk)),
        "count_emitted_events": (numbers, counted, None, None),
        "count_started_runs": (ids, numbers, counted, STARTED_BY_TASK),
    }.items():
        rows = await connection.fetch(SQL[name], *arguments) if numbers else []
        counts[name] = {row["run"]: row["number"] for row in rows}
    if walk.focus.node is not None:
        # Of the task alone, as what is shown of its run is.
        (number,) = (each for each, hops in walk.runs.items() if hops == 0)
        focus, of_run = walk.focus, [number]
        emitted = await connection.fetch(
            SQL["count_emitted_events"], of_run, counted, focus.node, focus.map_index
        )
        begun = await connection.fetch(
            SQL["count_started_runs"], walk.ids(of_run), of_run, counted, focus.cause
        )
        counts["count_emitted_events"][number] = emitted[0]["number"]
        counts["count_started_runs"][number] = begun[0]["number"]
    # Retention removes events before the runs that consumed them, or after: links alone tell.
    gone: dict[int, int] = {}
    for event, run in walk.consumed:
        gone[run] = gone.get(run, 0) + (event in walk.events and event not in events)
    return {
        number: _run(
            walk.found[number],
            walk.runs[number],
            None if number not in starters else tasks.get(starters[number]),
            walk.gone,
            (
                counts["count_consumed_of_runs"].get(number, 0),
                gone.get(number, 0),
                counts["count_emitted_events"].get(number, 0),
                counts["count_started_runs"].get(number, 0),
            ),
        )
        for number in numbers
    }


def _run(
    run: FoundRun,
    hops: int,
    starting: asyncpg.Record | None,
    gone_runs: set[str],
    counts: tuple[int, int, int, int],
) -> TracedRun:
    view, starter = run.view, started_by(run.view)
    task = None
    if starter is not None and starting is not None:
        key = (starting["run"], starting["node"], starting["map_index"])
        task = _task(starter.task_id, key, {key: starting})
    if starter is not None and starter.run_id in gone_runs:
        starter = replace(starter, pruned=True)
    consumed, gone, emitted, started = counts
    return TracedRun(
        run_id=view.run_id,
        dag_id=view.dag_id,
        hops=hops,
        state=view.state,
        kind=view.kind,
        cause=view.cause,
        partition=view.partition,
        error=view.error,
        created_at=view.created_at,
        started_at=view.started_at,
        ended_at=view.ended_at,
        cleared=view.cleared,
        started_by=starter,
        starter=task,
        consumed=consumed,
        consumed_pruned=gone,
        emitted=emitted,
        started=started,
    )


def _trace(
    kind: str,
    name: str,
    walk: CausalWalk,
    runs: Mapping[int, TracedRun],
    events: Mapping[int, TracedEvent],
) -> CausalTrace:
    links = sorted(pair for pair in walk.consumed if pair[0] in events and pair[1] in runs)
    return CausalTrace(
        kind="run" if kind == "run" else "event",
        id=name,
        runs=sorted(runs.values(), key=lambda each: each.hops),
        events=sorted(events.values(), key=lambda each: each.hops),
        consumed=[
            TraceLink(event_id=events[event].event_id, run_id=runs[run].run_id)
            for event, run in links
        ],
        counted=counted_of(walk),
        cut=walk.cut,
    )


def counted_of(walk: CausalWalk) -> int:
    """Return up to how many causes and effects of each node are counted."""
    # Nodes by counts bound what one request reads: 500 nodes with 10,000 effects each are too many.
    return _COUNTED if len(walk.runs) + len(walk.events) <= _FEW_NODES else _COUNTED_OF_MANY

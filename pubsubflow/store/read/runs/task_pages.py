"""Pages of tasks, filtered: of one run, or along many runs, the newest first."""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Annotated
from uuid import UUID

import asyncpg
from msgspec import Meta, Struct

from pubsubflow.model.api.resources import NOT_STARTED
from pubsubflow.model.runs.filters import TaskFilter
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.runs.run_pages import find_page
from pubsubflow.store.read.runs.runs import FoundRun, read_runs
from pubsubflow.store.specs import SpecReader

_RUNS_AT_ONCE = 200
_MOST_STEPS = 25
_MOST = 2**31 - 1
_LAST = UUID(int=2**128 - 1)


class TaskPosition(Struct, frozen=True):
    """Where a page begins: after an instance of a run, or after all of them.

    Attributes:
        run: The run's id.
        node, map_index: Of the instance; None after the last one.
    """

    run: UUID
    node: Annotated[int, Meta(ge=0, le=_MOST)] | None = None
    map_index: Annotated[int, Meta(ge=NOT_MAPPED, le=_MOST)] = NOT_MAPPED


class TasksOfRuns(Struct, frozen=True):
    """The instances of a page.

    Attributes:
        tasks: Runs with the rows of their instances, in order.
        specs: Version → what it is.
        next: Where the next page begins; None at the end of the list.
    """

    tasks: list[tuple[FoundRun, list[asyncpg.Record]]]
    specs: dict[int, DagSpec]
    next: TaskPosition | None


async def find_tasks_of_run(
    connection: Connection,
    run: int,
    spec: DagSpec,
    after: tuple[int, int],
    *,
    limit: int,
    states: Collection[str],
    task: str | None,
) -> tuple[list[asyncpg.Record], list[int]]:
    """Return the rows of a page of a run's tasks, and the nodes among them that have not started.

    Args:
        connection: Postgres.
        run: Number of the run.
        spec: What it runs.
        after: Node and map index of the last instance of the page before.
        limit: Number of rows at most.
        states: Only instances in one of these states, `NOT_STARTED` among them; all if empty.
        task: Only those of this task; of none if the run has no such task.
    """
    nodes = [each.node for each in spec.tasks if task in (None, each.task_id)]
    if not states and task is None:
        rows = await connection.fetch(SQL["page_run_tasks"], run, *after, limit)
        started = {row["node"] for row in rows}
    else:
        # All states are asked for by None; a list without any is that of none.
        kept = [each for each in states if each != NOT_STARTED] if states else None
        wanted = [None] if task is None else nodes
        runs = [run] * len(wanted)
        rows = await connection.fetch(
            SQL["page_tasks_of_runs"], runs, wanted, kept, run, *after, limit
        )
        if states and NOT_STARTED not in states:
            return rows, []
        counts = await connection.fetch(SQL["count_run_tasks"], run)
        started = {row["node"] for row in counts}
    last = rows[-1]["node"] if len(rows) == limit else len(spec.tasks) - 1
    return rows, [node for node in nodes if after[0] < node <= last and node not in started]


async def find_tasks(
    connection: Connection,
    specs: SpecReader,
    chosen: TaskFilter,
    *,
    limit: int,
    after: TaskPosition | None,
) -> TasksOfRuns:
    """Return the task instances of a page, of at most 5,000 runs.

    Raises:
        NotFound: The DAG does not exist.
    """
    found: list[tuple[FoundRun, list[asyncpg.Record]]] = []
    known: dict[int, DagSpec] = {}
    position, left = after, limit
    for _ in range(_MOST_STEPS):
        runs, following = await _next_runs(connection, specs, chosen, position)
        known.update(await specs.load(connection, {run.version for run in runs}))
        rows = await _rows(connection, chosen, runs, known, position, left)
        numbers = {run.number: run for run in runs}
        for number, own in groupby(rows, key=lambda row: row["run"]):
            found.append((numbers[number], list(own)))
        left -= len(rows)
        if not left:
            last = rows[-1]
            run = UUID(numbers[last["run"]].view.run_id)
            return TasksOfRuns(found, known, TaskPosition(run, last["node"], last["map_index"]))
        position = following
        if position is None:
            break
    return TasksOfRuns(found, known, position)


async def _next_runs(
    connection: Connection,
    specs: SpecReader,
    chosen: TaskFilter,
    position: TaskPosition | None,
) -> tuple[list[FoundRun], TaskPosition | None]:
    """Return the next runs, the newest first, and where those after them begin."""
    before = None if position is None else position.run
    if position is not None and position.node is not None:
        # Its run is not at its end.
        before = UUID(int=min(position.run.int + 1, _LAST.int))
    page = await find_page(connection, specs, chosen.runs, limit=_RUNS_AT_ONCE, after=before)
    runs = await read_runs(connection, page.ids)
    if len(runs) == _RUNS_AT_ONCE:
        return runs, TaskPosition(UUID(runs[-1].view.run_id))
    return runs, None if page.end is None else TaskPosition(page.end)


async def _rows(
    connection: Connection,
    chosen: TaskFilter,
    runs: Sequence[FoundRun],
    specs: Mapping[int, DagSpec],
    position: TaskPosition | None,
    limit: int,
) -> list[asyncpg.Record]:
    wanted: list[tuple[int, int | None]] = [(run.number, None) for run in runs]
    if chosen.task_ids:
        wanted = [
            (run.number, task.node)
            for run in runs
            for task in specs[run.version].tasks
            if task.task_id in chosen.task_ids
        ]
    partial = next(
        (
            run.number
            for run in runs[:1]
            if position is not None and UUID(run.view.run_id) == position.run
        ),
        0,
    )
    node = -1 if position is None or position.node is None else position.node
    index = NOT_MAPPED if position is None else position.map_index
    found: list[asyncpg.Record] = await connection.fetch(
        SQL["page_tasks_of_runs"],
        [number for number, _ in wanted],
        [each for _, each in wanted],
        list(chosen.states) or None,
        *(partial, node, index, limit),
    )
    return found

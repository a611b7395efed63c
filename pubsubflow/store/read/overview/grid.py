"""Grids: the states of the tasks of a DAG's last runs, packed."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg

from pubsubflow.model.api.overviews.runs import GridRunView, GridTaskView, RunsGrid
from pubsubflow.model.api.resources import NOT_STARTED
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.runs.run_pages import LAST_ID
from pubsubflow.store.read.runs.runs import FoundRun, read_runs
from pubsubflow.store.specs import SpecReader

STATES = (NOT_STARTED, *TaskState)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGIT = {str(state): _DIGITS[place] for place, state in enumerate(STATES)}
_LACKING, _MAPPED = " ", "+"


class ReadGrids:
    """Queries about the tasks of many runs of one DAG."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def grid(self, dag_id: str, *, runs: int, after: UUID | None = None) -> RunsGrid:
        """Return the states of the tasks of a DAG's last runs.

        Args:
            dag_id: The DAG, also a retired one.
            runs: How many runs at most.
            after: The `next` of the runs that are newer.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.search() as connection:
            dag = await find_dag(connection, dag_id)
            page = await connection.fetch(SQL["page_grid_runs"], dag, after or LAST_ID, runs)
            ids = [row["id"] for row in page]
            found = await read_runs(connection, ids)
            versions = await connection.fetch(SQL["read_dags"], [dag])
            # A DAG that is deleted has no version in force; its runs are shown all the same.
            now = [row["version"] for row in versions]
            specs = await self._specs.load(connection, [*now, *(run.version for run in found)])
            # Packed by Postgres: a row a run and state in place of one for each of 25,000 tasks.
            plain = await connection.fetch(SQL["list_states_of_runs"], ids)
            mapped = await connection.fetch(SQL["count_mapped_of_runs"], ids)
        rows = grid_rows(specs[now[0]] if now else None, [specs[run.version] for run in found])
        places = {row.task_id: place for place, row in enumerate(rows)}
        states = _states_by_run(plain)
        counts = _counts_by_run(mapped)
        return RunsGrid(
            dag_id=dag_id,
            states=[str(state) for state in STATES],
            tasks=rows,
            runs=[
                _column(
                    run,
                    specs[run.version],
                    places,
                    states.get(run.number, {}),
                    counts.get(run.number, {}),
                )
                for run in reversed(found)
            ],
            next=found[-1].view.run_id if len(found) == runs else None,
        )


def grid_rows(now: DagSpec | None, others: Iterable[DagSpec]) -> list[GridTaskView]:
    """Return the tasks of the version in force, then those that only other versions have.

    Args:
        now: The version in force, if there is one.
        others: The versions of the runs, the newest first.
    """
    rows = {} if now is None else {task.task_id: _row(task, present=True) for task in now.tasks}
    for spec in others:
        for task in spec.tasks:
            if task.task_id not in rows:
                rows[task.task_id] = _row(task, present=False)
    return list(rows.values())


def _row(task: TaskSpec, *, present: bool) -> GridTaskView:
    return GridTaskView(
        task_id=task.task_id, mapped=task.mapped, groups=task.groups, present=present
    )


def _column(
    run: FoundRun,
    spec: DagSpec,
    places: Mapping[str, int],
    states: Mapping[int, str],
    counts: Mapping[int, dict[str, int]],
) -> GridRunView:
    marks = [_LACKING] * len(places)
    for task in spec.tasks:
        # An instance without an index: of a mapped task, before it is known how many there are.
        marks[places[task.task_id]] = (
            _MAPPED if task.node in counts else _DIGIT[states.get(task.node, NOT_STARTED)]
        )
    view = run.view
    return GridRunView(
        run_id=view.run_id,
        state=view.state,
        created_at=view.created_at,
        ended_at=view.ended_at,
        kind=view.kind,
        version=view.version,
        cause=view.cause,
        started_at=view.started_at,
        logical_time=view.logical_time,
        partition=view.partition,
        marks="".join(marks),
        counts={places[spec.tasks[node].task_id]: counts[node] for node in counts},
    )


def _states_by_run(rows: Sequence[asyncpg.Record]) -> dict[int, dict[int, str]]:
    """Return run → node → state."""
    found: dict[int, dict[int, str]] = {}
    for row in rows:
        found.setdefault(row["run"], {}).update(dict.fromkeys(row["nodes"], row["state"]))
    return found


def _counts_by_run(rows: Sequence[asyncpg.Record]) -> dict[int, dict[int, dict[str, int]]]:
    """Return run → node → state → number of mapped instances."""
    found: dict[int, dict[int, dict[str, int]]] = {}
    for row in rows:
        states = found.setdefault(row["run"], {}).setdefault(row["node"], {})
        states[row["state"]] = states.get(row["state"], 0) + row["instances"]
    return found

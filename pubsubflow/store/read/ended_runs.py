"""Runs that have ended, and tasks of runs, as other tasks wait for them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec import Struct

from pubsubflow.model.run_waits import EndedRun, RunEnded
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

# A run's id begins with the time at which it was made, by the clock of the manager that made it.
_SKEW = timedelta(minutes=1)


class _Candidate(Struct, frozen=True):
    """The run that a wait is for, ended or not."""

    number: int
    wanted: RunEnded
    row: asyncpg.Record


class EndedRuns:
    """Looks up what waits for other runs are for.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def find(self, waits: Mapping[int, RunEnded]) -> dict[int, EndedRun]:
        """Return the waits, by their numbers, whose run or task has ended.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            runs = await self._candidates(connection, waits)
            found = {
                each.number: _ended(each.row, each.row["state"])
                for each in runs
                if each.wanted.task_id is None and RunState(each.row["state"]).final
            }
            tasks = [each for each in runs if each.wanted.task_id is not None]
            if tasks:
                found |= await self._ended_tasks(connection, tasks)
        return found

    async def _candidates(
        self, connection: Connection, waits: Mapping[int, RunEnded]
    ) -> list[_Candidate]:
        """Return the runs that the waits are for, as far as they exist."""
        by_id = [(number, UUID(wait.run_id)) for number, wait in waits.items() if wait.run_id]
        ticks = [
            (number, wait.dag_id, wait.logical_time, wait.partition)
            for number, wait in waits.items()
            if wait.logical_time is not None
        ]
        later = [
            (number, wait.dag_id, _first_id(wait.since), wait.since, wait.partition)
            for number, wait in waits.items()
            if wait.logical_time is None and wait.since is not None
        ]
        rows: list[asyncpg.Record] = []
        for query, arguments in (
            ("find_awaited_runs", by_id),
            ("find_awaited_ticks", ticks),
            ("find_next_runs", later),
        ):
            if arguments:
                columns = map(list, zip(*arguments, strict=True))
                rows += await connection.fetch(SQL[query], *columns)
        return [_Candidate(row["number"], waits[row["number"]], row) for row in rows]

    async def _ended_tasks(
        self, connection: Connection, runs: Iterable[_Candidate]
    ) -> dict[int, EndedRun]:
        """Return those whose task has ended; of a mapped one, when its run has."""
        runs = list(runs)
        specs = await self._specs.load(connection, [each.row["version"] for each in runs])
        nodes = {each.number: _node(specs[each.row["version"]], each.wanted) for each in runs}
        keys = [(each.row["id"], nodes[each.number]) for each in runs]
        rows = await connection.fetch(
            SQL["find_ended_tasks"], [run for run, _ in keys], [node or 0 for _, node in keys]
        )
        states: dict[tuple[int, int], dict[int, str]] = {}
        for row in rows:
            states.setdefault((row["run"], row["node"]), {})[row["map_index"]] = row["state"]
        found: dict[int, EndedRun] = {}
        for each in runs:
            node = nodes[each.number]
            ended = states.get((each.row["id"], -1 if node is None else node), {})
            state = _task_state(ended, over=RunState(each.row["state"]).final)
            if state is not None:
                found[each.number] = _ended(each.row, state)
        return found


def _task_state(states: Mapping[int, str], *, over: bool) -> str | None:
    """Return the state in which a task has ended; None if it may not have.

    Args:
        states: Map index → end state, of what has ended.
        over: Whether the run has ended.
    """
    if NOT_MAPPED in states:
        return states[NOT_MAPPED]
    if not over:
        return None
    # A task that is not there any more, or never was in this version, has not run.
    bad = [state for state in states.values() if state != TaskState.SUCCESS]
    return (bad or [*states.values(), TaskState.SKIPPED.value])[0]


def _node(spec: DagSpec, wanted: RunEnded) -> int | None:
    return next((task.node for task in spec.tasks if task.task_id == wanted.task_id), None)


def _first_id(moment: datetime) -> UUID:
    """Return the least id that a run made then may have (RFC 9562, version 7)."""
    return UUID(int=int((moment - _SKEW).timestamp() * 1000) << 80)


def _ended(row: asyncpg.Record, state: str) -> EndedRun:
    return EndedRun(
        run_id=str(row["run_id"]),
        dag_id=row["dag_id"],
        state=state,
        logical_time=row["logical_time"],
        partition=row["partition"],
        error=row["error"],
    )

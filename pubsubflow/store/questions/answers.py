"""Questions of tasks and triggers: what the store says of runs, tasks, events, DAGs, variables."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from pubsubflow.errors import NotFound
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.schedule.dates import date_of, tick_of
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.model.wire.task_questions import (
    MOST_EVENTS,
    MOST_RUNS,
    DagFact,
    FindDag,
    FindEvents,
    FindRunBefore,
    FindRuns,
    FindTaskBefore,
    FindTasks,
    FindVariables,
    FoundNames,
    ReadVariable,
    RunFact,
    TaskFact,
    TaskQuestion,
)
from pubsubflow.store.codecs import decode_event_info
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.store.specs import SpecReader

_MOST_LOOKS = 50
_STATES = {str(TaskState.READY): "scheduled", str(TaskState.CANCELLED): "failed"}


class TaskQuestionQueries:
    """Answers the questions that change nothing.

    Args:
        database: Postgres.
        variables: The variables; there are none if left out.
    """

    def __init__(self, database: Database, variables: Variables | None = None) -> None:
        self._database = database
        self._variables = variables
        self._specs = SpecReader()
        self._answers: dict[type, Callable[[Connection, Any], Awaitable[Any]]] = {
            FindRuns: self._runs,
            FindTasks: self._tasks,
            FindRunBefore: self._run_before,
            FindTaskBefore: self._task_before,
            FindEvents: self._events,
            FindDag: self._dag,
            FindVariables: self._names,
        }

    def knows(self, question: TaskQuestion) -> bool:
        """Return whether a question changes nothing."""
        return type(question) in self._answers or isinstance(question, ReadVariable)

    async def answer(self, question: TaskQuestion) -> Any:
        """Return the answer to a question.

        Raises:
            ConfigError: A variable cannot be decrypted.
            Unavailable: Postgres, or a secrets backend, is away.
        """
        if isinstance(question, ReadVariable):
            return await self._variable(question)
        async with self._database.search() as connection:
            return await self._answers[type(question)](connection, question)

    async def _variable(self, question: ReadVariable) -> Any:
        if self._variables is None:
            return None
        try:
            return await self._variables.read(question.name)
        except NotFound:
            return None

    async def _names(self, connection: Connection, question: FindVariables) -> FoundNames:
        rows = await connection.fetch(SQL["find_variable_names"], question.prefix)
        names = tuple(row["name"] for row in rows)
        end = question.offset + question.limit
        return FoundNames(names[question.offset : end], len(names))

    async def _dag(self, connection: Connection, question: FindDag) -> DagFact | None:
        row = await connection.fetchrow(SQL["find_dag_fact"], question.dag_id)
        if row is None:
            return None
        spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
        tags, owner = tuple(spec.tags), spec.owner
        return DagFact(
            spec.dag_id, row["paused"], row["file"], owner, tags, _maybe(row["next_run"], spec)
        )

    async def _events(self, connection: Connection, question: FindEvents) -> list[EventInfo]:
        name = "find_first_events" if question.ascending else "find_last_events"
        limit = MOST_EVENTS if question.limit is None else min(question.limit, MOST_EVENTS)
        span = (question.after, question.before)
        if question.limit is None and question.ascending:
            # All of them, and of too many the newest ones.
            rows = await connection.fetch(SQL["find_last_events"], question.uri, *span, limit)
            rows.reverse()
        else:
            rows = await connection.fetch(SQL[name], question.uri, *span, limit)
        specs = await self._specs.load(connection, (row["version"] for row in rows))
        return [decode_event_info(row, specs.get(row["version"])) for row in rows]

    async def _runs(self, connection: Connection, question: FindRuns) -> list[RunFact]:
        return [fact for _, fact in await self._found(connection, question)]

    async def _found(
        self, connection: Connection, question: FindRuns
    ) -> list[tuple[asyncpg.Record, RunFact]]:
        """Return the runs of a question, newest first, as rows and as facts."""
        force = await connection.fetchrow(SQL["find_version_in_force"], question.dag_id)
        if force is None:
            return []
        spec = (await self._specs.load(connection, [force["version"]]))[force["version"]]
        rows = await _rows(connection, force["id"], spec, question)
        facts = await self._facts(connection, question.dag_id, rows)
        found = list(zip(rows, facts, strict=True))
        if question.states is None:
            return found
        return [(row, fact) for row, fact in found if fact.state in question.states]

    async def _facts(
        self, connection: Connection, dag_id: str, rows: Sequence[asyncpg.Record]
    ) -> list[RunFact]:
        specs = await self._specs.load(connection, (row["version"] for row in rows))
        return [_fact(dag_id, row, specs.get(row["version"])) for row in rows]

    async def _run_before(self, connection: Connection, question: FindRunBefore) -> RunFact | None:
        found = await self._before(connection, question.dag_id, question.before, question.state, 1)
        return found[0][1] if found else None

    async def _before(
        self, connection: Connection, dag_id: str, before: datetime, state: str | None, most: int
    ) -> list[tuple[asyncpg.Record, RunFact]]:
        force = await connection.fetchrow(SQL["find_version_in_force"], dag_id)
        if force is None:
            return []
        spec = (await self._specs.load(connection, [force["version"]]))[force["version"]]
        tick = tick_of(_intervals(spec), before)
        rows = await connection.fetch(SQL["find_runs_before"], force["id"], tick, state, most)
        return list(zip(rows, await self._facts(connection, dag_id, rows), strict=True))

    async def _task_before(
        self, connection: Connection, question: FindTaskBefore
    ) -> TaskFact | None:
        wanted = (question.task_id,)
        if question.before is None:
            runs = await self._found(connection, FindRuns(question.dag_id))
        else:
            runs = await self._before(
                connection, question.dag_id, question.before, None, _MOST_LOOKS
            )
        for row, run in runs[:_MOST_LOOKS]:
            for fact in await self._of_run(connection, row, run, wanted, None, question.map_index):
                if question.state in (None, fact.state) and fact.state is not None:
                    return fact
        return None

    async def _tasks(self, connection: Connection, question: FindTasks) -> list[TaskFact]:
        found: list[TaskFact] = []
        for row, run in await self._found(connection, question.runs):
            found += await self._of_run(
                connection, row, run, question.task_ids, question.group, question.map_index
            )
        return found

    async def _of_run(
        self,
        connection: Connection,
        row: asyncpg.Record,
        run: RunFact,
        task_ids: Sequence[str] | None,
        group: str | None,
        map_index: int | None,
    ) -> list[TaskFact]:
        """Return the instances of tasks of a run; one that has not begun is one without a state."""
        spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
        wanted = {
            task.node: task.task_id
            for task in spec.tasks
            if (task_ids is None or task.task_id in task_ids)
            and (group is None or group in task.groups)
        }
        rows = await connection.fetch(
            SQL["find_task_states"], row["id"], list(wanted), None if map_index == -1 else map_index
        )
        found = [_task(run, wanted, each) for each in rows]
        seen = {each["node"] for each in rows}
        found += [
            TaskFact(run, name, -1, None) for node, name in wanted.items() if node not in seen
        ]
        return found


async def _rows(
    connection: Connection, dag: int, spec: DagSpec, question: FindRuns
) -> list[asyncpg.Record]:
    """Return the runs of a DAG that have the dates and the ids of a question."""
    dates, keys = question.logical_dates, question.run_ids
    if dates is None and keys is None:
        return list(await connection.fetch(SQL["find_newest_runs"], dag, MOST_RUNS))
    found: dict[int, asyncpg.Record] = {}
    if keys is not None:
        for row in await connection.fetch(SQL["find_runs_asked_by_key"], dag, list(keys)):
            found[row["id"]] = row
        for row in await connection.fetch(SQL["find_runs_asked_by_id"], dag, list(_ids(keys))):
            found[row["id"]] = row
    if dates is not None:
        # A manual run has the date that it was given, also where a tick has that of its interval.
        ticks = {tick_of(_intervals(spec), date) for date in dates}
        wanted = {*ticks, *dates}
        rows = await connection.fetch(SQL["find_runs_asked_by_time"], dag, list(wanted), MOST_RUNS)
        # In Airflow a date is one run's alone: of several here the newest one counts.
        dated = {row["logical_time"]: row for row in reversed(rows) if _has_date(row, ticks, dates)}
        fitting = {row["id"]: row for row in dated.values()}
        found = fitting if keys is None else {key: found[key] for key in found if key in fitting}
    return sorted(found.values(), key=lambda row: row["run_id"], reverse=True)


def _intervals(spec: DagSpec) -> ScheduleSpec | None:
    """Return the schedule of a DAG whose dates are starts of intervals."""
    return spec.schedule if spec.interval_dates else None


def _has_date(row: asyncpg.Record, ticks: Iterable[datetime], dates: Iterable[datetime]) -> bool:
    return row["logical_time"] in (dates if row["kind"] == "manual" else ticks)


def _ids(keys: Iterable[str]) -> Iterable[UUID]:
    for key in keys:
        try:
            yield UUID(key)
        except ValueError:
            continue


def _fact(dag_id: str, row: asyncpg.Record, spec: DagSpec | None) -> RunFact:
    tick = row["logical_time"]
    date = tick if row["kind"] == "manual" or spec is None else _maybe(tick, spec)
    params = row["params"]
    return RunFact(
        dag_id,
        str(row["run_id"]),
        row["run_key"],
        row["kind"],
        row["state"],
        date,
        tick,
        row["partition"],
        row["created_at"],
        row["started_at"],
        row["ended_at"],
        msgspec.json.decode(params) if isinstance(params, str) else params,
        row["clear_number"],
    )


def _maybe(tick: datetime | None, spec: DagSpec) -> datetime | None:
    return None if tick is None else date_of(_intervals(spec), tick)


def _task(run: RunFact, names: dict[int, str], row: asyncpg.Record) -> TaskFact:
    state = _STATES.get(row["state"], row["state"])
    times = (row["started_at"], row["ended_at"])
    return TaskFact(run, names[row["node"]], row["map_index"], state, row["attempt"], *times)

"""What people ask about the tasks of runs, and their output."""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import (
    NOT_STARTED,
    AttemptView,
    Page,
    TaskDetail,
    TaskErrorView,
    TaskView,
)
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.pools import why_ready
from pubsubflow.store.read.runs import FoundRun, find_run
from pubsubflow.store.specs import Specs

SHOWN_RESULT_BYTES = 256 * 1024
_RUN_ID_CHARACTERS = 36
_INDEX = re.compile(r"[0-9]{1,9}")


class TaskPlace(Struct, frozen=True):
    """Which task instance is meant.

    Attributes:
        map_index: NOT_MAPPED for a plain task.
    """

    run: FoundRun
    spec: DagSpec
    node: int
    map_index: int = NOT_MAPPED

    @property
    def task(self) -> TaskSpec:
        """Return the task."""
        return self.spec.tasks[self.node]

    @property
    def id(self) -> str:
        """Return what outsiders call it."""
        end = "" if self.map_index == NOT_MAPPED else f".{self.map_index}"
        return f"{self.run.view.run_id}.{self.task.task_id}{end}"


class Standing(Struct, frozen=True):
    """Where a task instance stands.

    Attributes:
        attempt: The latest, 0 before the first.
        delivery: Of that attempt; None once the instance is final.
    """

    attempt: int = 0
    delivery: int | None = 0
    state: str = NOT_STARTED

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.state != NOT_STARTED and TaskState(self.state).final


class Position(Struct, frozen=True, order=True):
    """A place in the output of a task instance: after this piece."""

    attempt: int
    delivery: int = 0
    sequence: int = -1


class LogPiece(Struct, frozen=True):
    """A piece of output: whole lines of JSON, see `pubsubflow.model.wire.messages.LogMessage`."""

    position: Position
    text: str


class ReadTasks:
    """Queries about task instances."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    async def find(self, run_id: UUID, task: str, map_index: int | None = None) -> TaskPlace:
        """Return which instance is meant.

        Args:
            run_id: The run.
            task: The task's id, with `.<map_index>` at its end if that is not given otherwise.
            map_index: Which instance of a mapped task.

        Raises:
            NotFound: There is no such run, or no such task in it.
        """
        async with self._database.connection() as connection:
            run = await find_run(connection, run_id)
            specs = await self._specs.load(connection, [run.version])
        spec = specs[run.version]
        nodes = {each.task_id: each.node for each in spec.tasks}
        if task in nodes:
            return TaskPlace(run, spec, nodes[task], NOT_MAPPED if map_index is None else map_index)
        name, _, index = task.rpartition(".")
        if map_index is None and name in nodes and _INDEX.fullmatch(index):
            return TaskPlace(run, spec, nodes[name], int(index))
        raise NotFound(f"task in run {run_id} of DAG {run.view.dag_id}", task)

    async def find_by_id(self, task: str) -> TaskPlace:
        """Return the instance that outsiders call `<run_id>.<task_id>[.<map_index>]`.

        Raises:
            NotFound: There is none.
        """
        run_id, name = task[:_RUN_ID_CHARACTERS], task[_RUN_ID_CHARACTERS + 1 :]
        try:
            return await self.find(UUID(run_id), name)
        except ValueError:
            raise NotFound("task", task) from None

    async def page(
        self, run_id: UUID, *, limit: int, after: tuple[int, int] = (-1, NOT_MAPPED)
    ) -> Page[TaskView]:
        """Return the task instances of a run in topological order, also tasks not started yet.

        Args:
            run_id: The run.
            limit: Number of instances at most.
            after: Node and map index of the last instance of the page before.

        Raises:
            NotFound: There is no such run.
        """
        async with self._database.connection() as connection:
            run = await find_run(connection, run_id)
            specs = await self._specs.load(connection, [run.version])
            rows = await connection.fetch(SQL["page_run_tasks"], run.number, *after, limit)
            reasons = await why_ready(connection, run.number, rows)
        spec = specs[run.version]
        full = len(rows) == limit
        last = rows[-1]["node"] if full else len(spec.tasks) - 1
        started = {row["node"] for row in rows}
        waiting = set(range(after[0] + 1, last + 1)) - started
        keys = [(row["node"], row["map_index"]) for row in rows]
        found = [
            (key, _task(run, spec, row, reasons.get(key)))
            for key, row in zip(keys, rows, strict=True)
        ]
        found += [
            ((node, NOT_MAPPED), _not_started(TaskPlace(run, spec, node))) for node in waiting
        ]
        found.sort(key=lambda each: each[0])
        more = full or len(found) > limit
        shown = found[:limit]
        return Page(
            [view for _, view in shown],
            "{} {}".format(*shown[-1][0]) if more else None,
        )

    async def get(self, place: TaskPlace) -> TaskDetail:
        """Return a task instance with its result and its earlier attempts."""
        key = (place.run.number, place.node, place.map_index)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task"], *key, SHOWN_RESULT_BYTES)
            attempts = await connection.fetch(SQL["read_attempts"], *key)
            reasons = await why_ready(connection, place.run.number, [row] if row else [])
        if row is None and place.map_index != NOT_MAPPED:
            raise NotFound("task instance", place.id)
        view = (
            _not_started(place)
            if row is None
            else _task(place.run, place.spec, row, reasons.get(key[1:]))
        )
        return TaskDetail(
            **asdict(view),
            attempts=[_attempt(each) for each in attempts],
            result=_as_json(row["result"]) if row is not None else None,
            result_bytes=row["result_bytes"] if row is not None else 0,
        )

    async def standing(self, place: TaskPlace) -> Standing:
        """Return where a task instance stands."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                SQL["read_standing"], place.run.number, place.node, place.map_index
            )
        return Standing() if row is None else Standing(**dict(row))

    async def log(self, place: TaskPlace, after: Position, *, limit: int) -> list[LogPiece]:
        """Return pieces of a task instance's output, in order.

        Args:
            place: The instance.
            after: The piece to go on after.
            limit: Number of pieces at most, of about 32 KiB each.
        """
        key = (place.run.number, place.node, place.map_index)
        position = (after.attempt, after.delivery, after.sequence)
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_log"], *key, *position, limit)
        return [
            LogPiece(Position(row["attempt"], row["delivery"], row["sequence"]), row["text"])
            for row in rows
        ]


def _task(run: FoundRun, spec: DagSpec, row: asyncpg.Record, waits_for: str | None) -> TaskView:
    place = TaskPlace(run, spec, row["node"], row["map_index"])
    return TaskView(
        id=place.id,
        run_id=run.view.run_id,
        dag_id=spec.dag_id,
        task_id=place.task.task_id,
        map_index=None if place.map_index == NOT_MAPPED else place.map_index,
        state=row["state"],
        attempt=row["attempt"],
        operator=place.task.operator,
        worker=row["worker"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        length=row["length"],
        error=_error(row["error"]),
        waits_for=waits_for,
    )


def _not_started(place: TaskPlace) -> TaskView:
    return TaskView(
        id=place.id,
        run_id=place.run.view.run_id,
        dag_id=place.spec.dag_id,
        task_id=place.task.task_id,
        state=NOT_STARTED,
        operator=place.task.operator,
    )


def _attempt(row: asyncpg.Record) -> AttemptView:
    return AttemptView(
        attempt=row["attempt"],
        delivery=row["delivery"],
        worker=row["worker"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=_error(row["error"]),
        state=row["state"],
    )


def _error(stored: dict[str, Any] | Sequence[Any] | None) -> TaskErrorView | None:
    """Return an error as it was stored: by field names, or in the order of the wire."""
    if stored is None:
        return None
    if not isinstance(stored, dict):
        stored = dict(zip(TaskErrorView.__struct_fields__, stored, strict=False))
    return msgspec.convert(stored, TaskErrorView)


def _as_json(result: bytes | None) -> Any:
    """Return a result as plain JSON values; None when it cannot be said in JSON."""
    if result is None:
        return None
    try:
        value = msgspec.msgpack.decode(result)
        return msgspec.json.decode(msgspec.json.encode(value))
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError):
        return None

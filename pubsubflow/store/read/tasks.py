"""Task instances and their output, read for the API."""

import re
from collections.abc import Collection
from typing import Any
from uuid import UUID

import anyio.to_thread
import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.resources import (
    NOT_STARTED,
    AttemptView,
    Page,
    TaskDetail,
    TaskView,
)
from pubsubflow.model.runs.filters import TaskFilter
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED, TaskKey
from pubsubflow.model.wire.outputs import decode_outputs
from pubsubflow.model.wire.stored_results import decode_stored
from pubsubflow.object_store import LogStore
from pubsubflow.store.alerts.call_views import read_callbacks
from pubsubflow.store.codecs import REMOVED_RESULT, decode_error_view
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.objects.output import LogChunk, OutputPosition, ReadOutput
from pubsubflow.store.objects.results import ReadResults, encode_json
from pubsubflow.store.read.runs.runs import FoundRun, find_run
from pubsubflow.store.read.runs.task_pages import TaskPosition, find_tasks, find_tasks_of_run
from pubsubflow.store.read.task_endings import TaskEnding, read_ending
from pubsubflow.store.read.task_waits import read_wait_reasons
from pubsubflow.store.specs import SpecReader

SHOWN_RESULT_BYTES = 256 * 1024
_RUN_ID_CHARACTERS = 36
_INDEX = re.compile(r"[0-9]{1,9}")


class FoundTask(Struct, frozen=True):
    """A task instance of a run, whether or not it has started.

    Attributes:
        map_index: NOT_MAPPED for a plain task.
    """

    run: FoundRun
    dag_spec: DagSpec
    node: int
    map_index: int = NOT_MAPPED

    @property
    def task_spec(self) -> TaskSpec:
        """Return the task."""
        return self.dag_spec.tasks[self.node]

    @property
    def key(self) -> TaskKey:
        """Return its key in the store."""
        return self.run.number, self.node, self.map_index

    @property
    def id(self) -> str:
        """Return its public id."""
        end = "" if self.map_index == NOT_MAPPED else f".{self.map_index}"
        return f"{self.run.view.run_id}.{self.task_spec.task_id}{end}"


class TaskStatus(Struct, frozen=True):
    """The status of a task instance.

    Attributes:
        attempt: The latest, 0 before the first.
        delivery: Of that attempt; None once the instance is final.
    """

    attempt: int = 0
    delivery: int | None = 0
    state: str = NOT_STARTED

    @property
    def final(self) -> bool:
        """Whether the state is final."""
        return self.state != NOT_STARTED and TaskState(self.state).final


class ReadTasks:
    """Queries about task instances."""

    def __init__(
        self,
        database: Database,
        specs: SpecReader,
        log_store: LogStore | None = None,
        results: ReadResults | None = None,
    ) -> None:
        self._database = database
        self._specs = specs
        self._results = results or ReadResults(None)
        self.output = ReadOutput(database, log_store)

    async def find(self, run_id: UUID, task: str, map_index: int | None = None) -> FoundTask:
        """Return a task instance.

        Args:
            run_id: The run.
            task: The task's id, or `<task_id>.<map_index>`.
            map_index: Of a mapped task, unless `task` has it.

        Raises:
            NotFound: The run does not exist, or does not have the task.
        """
        async with self._database.connection() as connection:
            run = await find_run(connection, run_id)
            specs = await self._specs.load(connection, [run.version])
        spec = specs[run.version]
        nodes = {each.task_id: each.node for each in spec.tasks}
        # The whole name first: task ids may end with a dot and digits themselves.
        if task in nodes:
            return FoundTask(run, spec, nodes[task], NOT_MAPPED if map_index is None else map_index)
        name, _, index = task.rpartition(".")
        if map_index is None and name in nodes and _INDEX.fullmatch(index):
            return FoundTask(run, spec, nodes[name], int(index))
        raise NotFound(f"task in run {run_id} of DAG {run.view.dag_id}", task)

    async def find_by_id(self, task: str) -> FoundTask:
        """Return the instance with the public id `<run_id>.<task_id>[.<map_index>]`.

        Raises:
            NotFound: No instance has this id.
        """
        run_id, name = task[:_RUN_ID_CHARACTERS], task[_RUN_ID_CHARACTERS + 1 :]
        try:
            return await self.find(UUID(run_id), name)
        except ValueError:
            raise NotFound("task", task) from None

    async def page(
        self,
        run_id: UUID,
        *,
        limit: int,
        after: tuple[int, int] = (-1, NOT_MAPPED),
        states: Collection[str] = (),
        task: str | None = None,
    ) -> Page[TaskView]:
        """Return the task instances of a run in topological order, with tasks not started yet.

        Args:
            run_id: The run.
            limit: Number of instances at most.
            after: Node and map index of the last instance of the page before.
            states: Only those in one of these states; all if empty.
            task: Only those of this task, if the run's version has it.

        Raises:
            NotFound: The run does not exist.
        """
        async with self._database.search() as connection:
            run = await find_run(connection, run_id)
            specs = await self._specs.load(connection, [run.version])
            spec = specs[run.version]
            rows, waiting = await find_tasks_of_run(
                connection, run.number, spec, after, limit=limit, states=states, task=task
            )
            reasons = await read_wait_reasons(connection, run.number, spec, rows)
        full = len(rows) == limit
        keys = [(row["node"], row["map_index"]) for row in rows]
        found = [
            (key, _task(run, spec, row, reasons.get(key)))
            for key, row in zip(keys, rows, strict=True)
        ]
        found += [
            (key, _not_started(FoundTask(run, spec, key[0]), reasons.get(key)))
            for key in ((node, NOT_MAPPED) for node in waiting)
        ]
        # Nodes without rows are not started: they are merged in, so a page may get too long.
        found.sort(key=lambda each: each[0])
        more = full or len(found) > limit
        shown = found[:limit]
        return Page(
            [view for _, view in shown],
            "{} {}".format(*shown[-1][0]) if more else None,
        )

    async def search(
        self, chosen: TaskFilter, *, limit: int, after: TaskPosition | None = None
    ) -> Page[TaskView]:
        """Return task instances of many runs, those of the newest run first.

        A search for what is rare goes through some thousand runs at a time: such a page may be
        short, or empty, although the list goes on.

        Args:
            chosen: Which instances.
            limit: Number of instances at most.
            after: The `next` of the page before, decoded.

        Raises:
            NotFound: The DAG does not exist.
        """
        async with self._database.search() as connection:
            page = await find_tasks(connection, self._specs, chosen, limit=limit, after=after)
            views = []
            for run, rows in page.tasks:
                reasons = {}
                if any(row["state"] == TaskState.READY for row in rows):
                    spec = page.specs[run.version]
                    reasons = await read_wait_reasons(connection, run.number, spec, rows)
                views += [
                    _task(run, page.specs[run.version], row, reasons.get(_key(row))) for row in rows
                ]
        position = None if page.next is None else msgspec.json.encode(page.next).decode()
        return Page(views, position)

    async def get(self, task: FoundTask) -> TaskDetail:
        """Return a task instance with its result and its earlier attempts."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task"], *task.key, SHOWN_RESULT_BYTES)
            attempts = await connection.fetch(SQL["read_attempts"], *task.key)
            callbacks = await read_callbacks(connection, *task.key)
            reasons = await read_wait_reasons(
                connection, task.run.number, task.dag_spec, [row] if row else []
            )
        if row is None and task.map_index != NOT_MAPPED:
            raise NotFound("task instance", task.id)
        view = (
            _not_started(task, reasons.get(task.key[1:]))
            if row is None
            else _task(task.run, task.dag_spec, row, reasons.get(task.key[1:]))
        )
        data = None if row is None else row["result"]
        size = 0 if row is None else row["result_bytes"]
        stored = None if data is None else decode_stored(data)
        pruned = data == REMOVED_RESULT
        return TaskDetail(
            **asdict(view),
            attempts=[_attempt(each) for each in attempts],
            result=None
            if data is None or pruned
            else await self._results.show(data, max_bytes=SHOWN_RESULT_BYTES),
            result_bytes=0 if pruned else size if stored is None else stored.size,
            result_pruned=pruned,
            **await self._outputs(row),
            result_stored=stored is not None and stored.copied,
            result_keeper="" if stored is None else stored.keeper.partition(":")[0],
            callbacks=callbacks,
        )

    async def result(self, task: FoundTask) -> bytes:
        """Return the result of a task instance as JSON, whatever its size.

        Raises:
            NotFound: It has none, or that was pruned.
            InvalidInput: JSON cannot represent it.
            ObjectStoreUnavailable: The result store is away.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task"], *task.key, 2**31 - 1)
        if row is None or row["state"] != TaskState.SUCCESS:
            raise NotFound("result of a task", task.id)
        if row["result"] == REMOVED_RESULT:
            raise NotFound("result, as it was pruned, of task", task.id)
        data = await self._results.read(row["result"] or b"")
        try:
            return await anyio.to_thread.run_sync(encode_json, data)
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"JSON cannot represent the result of {task.id}: {error}") from error

    async def status(self, task: FoundTask) -> TaskStatus:
        """Return the status of a task instance."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task_state"], *task.key)
        return TaskStatus() if row is None else TaskStatus(**dict(row))

    async def _outputs(self, row: asyncpg.Record | None) -> dict[str, Any]:
        """Return the fields of a TaskDetail about what a task has left besides its result."""
        if row is None or not row["outputs_bytes"]:
            return {}
        found, show = decode_outputs(row["outputs"]), self._results.show
        return {
            "results": {
                key: await show(bytes(value), max_bytes=SHOWN_RESULT_BYTES)
                for key, value in found.pushed.items()
            },
            "results_bytes": row["outputs_bytes"],
            "rendered": found.rendered,
        }

    async def check_log(self, task: FoundTask, attempt: int | None) -> None:
        """Check that there may be output of an attempt of a task instance.

        Raises:
            InvalidInput: The task is mapped, and the instance is not named.
            NotFound: The instance or the attempt does not exist.
        """
        key = (task.run.number, task.node)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task_state"], *key, task.map_index)
            count = (
                await connection.fetchval(SQL["count_instances"], *key)
                if row is None and task.task_spec.mapped
                else 0
            )
        name = task.task_spec.task_id
        if task.map_index == NOT_MAPPED and count:
            raise InvalidInput(
                f"task {name!r} is mapped: give the map_index of one of its {count} instances, "
                f"from 0 to {count - 1} (--map-index)"
            )
        if row is None and task.map_index != NOT_MAPPED:
            raise NotFound("task instance", task.id)
        latest = 0 if row is None else row["attempt"]
        if attempt is not None and not 1 <= attempt <= latest:
            raise NotFound("attempt", f"{attempt} of task {name}, which has had {latest}")

    async def ending(
        self, task: FoundTask, attempt: int | None, *, full: bool
    ) -> TaskEnding | None:
        """Return the end of an attempt; None while it goes on, or if it succeeded.

        Args:
            task: The instance.
            attempt: Counted from 1; the latest if None.
            full: With the frames of pubsubflow in the traceback.
        """
        async with self._database.connection() as connection:
            return await read_ending(connection, task.key, task.dag_spec, attempt, full=full)

    async def log(self, task: FoundTask, after: OutputPosition, *, limit: int) -> list[LogChunk]:
        """Return chunks of a task instance's output, in order.

        Args:
            task: The instance.
            after: The last chunk of the page before.
            limit: Number of chunks at most, of about 32 KiB each; those of a file of the log store
                come together.

        Raises:
            ObjectStoreUnavailable: The log store does not answer.
        """
        return await self.output.read(task.key, after, limit=limit)


def _key(row: asyncpg.Record) -> tuple[int, int]:
    return row["node"], row["map_index"]


def _task(run: FoundRun, spec: DagSpec, row: asyncpg.Record, waits_for: str | None) -> TaskView:
    task = FoundTask(run, spec, row["node"], row["map_index"])
    return TaskView(
        id=task.id,
        run_id=run.view.run_id,
        dag_id=spec.dag_id,
        task_id=task.task_spec.task_id,
        map_index=None if task.map_index == NOT_MAPPED else task.map_index,
        state=row["state"],
        attempt=row["attempt"],
        operator=task.task_spec.operator,
        worker=row["worker"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        length=row["length"],
        error=decode_error_view(row["error"]),
        waits_for=waits_for,
        peak_memory=row["peak_memory"],
        map_name=row["map_name"],
    )


def _not_started(task: FoundTask, waits_for: str | None) -> TaskView:
    return TaskView(
        id=task.id,
        run_id=task.run.view.run_id,
        dag_id=task.dag_spec.dag_id,
        task_id=task.task_spec.task_id,
        state=NOT_STARTED,
        operator=task.task_spec.operator,
        waits_for=waits_for,
    )


def _attempt(row: asyncpg.Record) -> AttemptView:
    return AttemptView(
        attempt=row["attempt"],
        delivery=row["delivery"],
        worker=row["worker"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=decode_error_view(row["error"]),
        state=row["state"],
        peak_memory=row["peak_memory"],
    )

"""Worker requests: the reads, journal writes and lease checks behind the manager's replies."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

import asyncpg
from msgspec import Raw

from pubsubflow.errors import LeaseLost, NotFound
from pubsubflow.model.source.bundles import DagSource
from pubsubflow.model.values.state import StateValue
from pubsubflow.model.wire.commands import StartingTask
from pubsubflow.model.wire.messages import EventInfo, JournalEntry, decode_run_info
from pubsubflow.model.wire.outputs import PulledValues, decode_outputs
from pubsubflow.model.wire.worker_requests import (
    ConnectionRequest,
    JournalEntryRequest,
    LeaseRequest,
    PreviousRun,
    PullRequest,
    StartRunRequest,
    TaskQuestionRequest,
    VariableRequest,
)
from pubsubflow.store.bundles import read_manifest, read_source, read_source_file
from pubsubflow.store.codecs import (
    REMOVED_RESULT,
    decode_event_info,
    decode_journal_entry,
    encode_error,
)
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

_NIL = b"\xc0"
FencedRequest = (
    JournalEntryRequest
    | ConnectionRequest
    | VariableRequest
    | StartRunRequest
    | TaskQuestionRequest
)


class LeaseHolder(NamedTuple):
    """The worker that runs a task.

    Attributes:
        worker: None when no worker is known to run it.
        silent_seconds: Time since its last heartbeat.
    """

    worker: str | None
    silent_seconds: float | None


class WorkerRequestQueries:
    """Queries behind the manager's replies to workers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def source(self, key: str) -> DagSource | None:
        """Return the source of a run by its key, or None."""
        async with self._database.connection() as connection:
            return await read_source(connection, key)

    async def bundle(self, bundle: str) -> bytes | None:
        """Return the encoded manifest of a bundle, or None."""
        async with self._database.connection() as connection:
            return await read_manifest(connection, bundle)

    async def file(self, file: str, offset: int, size: int) -> tuple[bytes, int] | None:
        """Return a part of a file and the size of the whole, or None."""
        async with self._database.connection() as connection:
            return await read_source_file(connection, file, offset, size)

    async def results(self, run: int, node: int, map_index: int | None) -> list[bytes | None]:
        """Return the encoded results of a node's successful instances, or of one of them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_node_results"], run, node, map_index)
        return [row["result"] for row in rows]

    async def dag_id(self, run: int) -> str:
        """Return the DAG of a run.

        Raises:
            NotFound: The run was removed.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["find_run_by_number"], run)
        if row is None:
            raise NotFound("run", str(run))
        return str(row["dag_id"])

    async def state(self, run: int, name: str) -> StateValue:
        """Return a value of the state of a run's DAG."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_state_value"], run, name)
        return StateValue() if row is None else StateValue(*row)

    async def previous_success(self, run: int) -> PreviousRun | None:
        """Return the last run before a run that has succeeded; None without one."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["find_previous_success"], run)
        if row is None:
            return None
        return PreviousRun(
            str(row["run_id"]), row["logical_time"], row["created_at"], row["started_at"]
        )

    async def pulled(self, request: PullRequest) -> PulledValues:
        """Return what a task has left under a key."""
        async with self._database.connection() as connection:
            return await _read_pulled(connection, self._specs, request)

    async def events(self, run: int, offset: int, limit: int) -> tuple[list[EventInfo], int]:
        """Return a page of the events that a run consumed, and their total number."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_consumed_events"], run, offset, limit)
            total = await connection.fetchval(SQL["count_consumed_events"], run)
            specs = await self._specs.load(connection, (row["version"] for row in rows))
        return [decode_event_info(row, specs.get(row["version"])) for row in rows], total or 0

    async def live_runs(self, runs: Sequence[int]) -> list[int]:
        """Return which of some runs have not ended."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["find_live_runs"], runs)
        return [row["run"] for row in rows]

    async def lease(self, request: LeaseRequest) -> LeaseHolder | None:
        """Return the worker that runs a task under a fence; None when the fence is void."""
        fence = (request.run, request.node, request.map_index, request.attempt, request.delivery)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_task_lease"], *fence)
        return None if row is None else LeaseHolder(*row)

    async def journal(self, run: int, node: int, map_index: int) -> list[JournalEntry]:
        """Return the journal of a task, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_journal"], run, node, map_index)
        return [decode_journal_entry(row) for row in rows]

    async def record(self, request: JournalEntryRequest) -> JournalEntry | None:
        """Record a journal entry and return the entry under its key.

        Returns:
            None while the row of the task is still to come.

        Raises:
            LeaseLost: The fence is void: the task runs elsewhere, or has ended.
        """
        recorded: list[JournalEntry | None] = []

        async def record(connection: Connection) -> None:
            # Assigned, not appended: the transaction may start over.
            recorded[:] = [await self._record(request, connection)]

        await self._database.in_transaction(record)
        return recorded[0]

    async def has_lease(self, request: FencedRequest) -> bool:
        """Return whether a task runs under the fence of a request.

        Returns:
            False while the row of the task is still to come.

        Raises:
            LeaseLost: The fence is void: the task runs elsewhere, or has ended.
        """
        async with self._database.transaction() as connection:
            return await check_fence(request, connection)

    async def starting_task(self, request: StartRunRequest) -> StartingTask:
        """Return the task that requests a run, with the DAGs that led to it.

        Raises:
            LeaseLost: Its run has ended.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_starting_run"], request.run)
            if row is None:
                raise LeaseLost("the run has ended")
            spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
        info = decode_run_info(row["info"])
        return StartingTask(
            run_id=info.run_id,
            dag_id=info.dag_id,
            task_id=spec.tasks[request.node].task_id,
            ancestry=(*info.ancestry, row["dag"]),
        )

    @staticmethod
    async def _record(request: JournalEntryRequest, connection: Connection) -> JournalEntry | None:
        if not await check_fence(request, connection):
            return None
        entry = request.entry
        row = await connection.fetchrow(
            SQL["record_journal_entry"], request.run, request.node, request.map_index,
            entry.key, entry.label, entry.kind, entry.value, encode_error(entry.error),
        )  # fmt: skip
        return None if row is None else decode_journal_entry(row)


async def check_fence(request: FencedRequest, connection: Connection) -> bool:
    """Lock the run of a task and return whether it runs under the fence of a request.

    Returns:
        False while the row of the task is still to come.

    Raises:
        LeaseLost: The fence is void: the task runs elsewhere, or has ended.
    """
    key = (request.run, request.node, request.map_index)
    if await connection.fetchval(SQL["lock_run_shared"], request.run) is None:
        raise LeaseLost("the run has ended")
    fence = await connection.fetchrow(SQL["read_task_fence"], *key)
    # A chained task may record before the manager has seen the result of the task before it and
    # made its row: then there is neither a live row nor a finished one.
    if fence is None and not await connection.fetchval(SQL["is_task_finished"], *key):
        return False
    if fence is None or tuple(fence) != (request.attempt, request.delivery):
        raise LeaseLost("the task was delivered anew, or has ended")
    return True


async def _read_pulled(
    connection: Connection, specs: SpecReader, request: PullRequest
) -> PulledValues:
    """Return what a task has left under a key."""
    run = await _find_run(connection, request)
    if run is None:
        return PulledValues(problem=_no_run(request))
    spec = (await specs.load(connection, [run["version"]]))[run["version"]]
    task = next((each for each in spec.tasks if each.task_id == request.task_id), None)
    if task is None:
        return PulledValues(problem=f"DAG {spec.dag_id!r} has no task {request.task_id!r}")
    rows = await connection.fetch(SQL["read_pushed"], run["id"], task.node, request.map_index)
    if any(row["result"] == REMOVED_RESULT for row in rows):
        removed = f"the results of task {request.task_id!r} are removed by retention"
        return PulledValues(problem=removed, mapped=task.mapped)
    found, keys = [], dict[str, None]()
    for row in rows:
        pushed = decode_outputs(row["outputs"]).pushed
        keys.update(dict.fromkeys(pushed))
        if request.key in pushed:
            found.append((row["map_index"], pushed[request.key], False))
        elif row["succeeded"]:
            found.append((row["map_index"], Raw(row["result"] or _NIL), True))
    if request.early:
        address = (run["id"], task.node, request.key, request.map_index)
        early = await connection.fetch(SQL["read_early_values"], *address)
        ended = {row["map_index"] for row in rows}
        found += [(index, Raw(value), False) for index, value in early if index not in ended]
        found.sort(key=itemgetter(0))
    return PulledValues(tuple(found), tuple(keys), mapped=task.mapped)


async def _find_run(connection: Connection, request: PullRequest) -> asyncpg.Record | None:
    if request.run_id is not None:
        try:
            run_id = UUID(request.run_id)
        except ValueError:
            # The key that was chosen for it, as Airflow's tasks do.
            return await connection.fetchrow(SQL["find_run_of_key"], request.dag_id, request.run_id)
        row = await connection.fetchrow(SQL["find_run_of_dag"], run_id)
        return row if row is not None and request.dag_id in (None, row["dag_id"]) else None
    if request.dag_id is not None:
        return await connection.fetchrow(SQL["find_last_success"], request.dag_id)
    return await connection.fetchrow(SQL["find_run_by_number"], request.run)


def _no_run(request: PullRequest) -> str:
    if request.run_id is None:
        return f"no run of DAG {request.dag_id!r} has succeeded"
    place = f" of DAG {request.dag_id!r}" if request.dag_id else ""
    return f"run {request.run_id!r}{place} does not exist"

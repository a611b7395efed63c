"""Reads what workers ask for."""

from typing import NamedTuple

import asyncpg
import msgspec

from pubsubflow.errors import LeaseLost
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import EventInfo, Step
from pubsubflow.model.wire.worker_requests import AskConnection, AskLease, RecordStep
from pubsubflow.store.codecs import error_column, step_of
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_decode_spec = msgspec.msgpack.Decoder(DagSpec).decode


class Holder(NamedTuple):
    """Who runs a task.

    Attributes:
        worker: None when nobody is known to.
        silent_seconds: How long ago it was heard.
    """

    worker: str | None
    silent_seconds: float | None


class Asked:
    """Queries behind the manager's answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def source(self, source_hash: str) -> bytes | None:
        """Return an encoded SourceBundle, or None."""
        async with self._database.connection() as connection:
            found: bytes | None = await connection.fetchval(SQL["read_source"], source_hash)
            return found

    async def results(self, run: int, node: int, map_index: int | None) -> list[bytes | None]:
        """Return the encoded results of a node's successful instances, or of one of them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_node_results"], run, node, map_index)
        return [row["result"] for row in rows]

    async def events(self, run: int, offset: int, limit: int) -> tuple[list[EventInfo], int]:
        """Return a part of the events that a run consumed, and how many there are."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_consumed_events"], run, offset, limit)
            total = await connection.fetchval(SQL["count_consumed_events"], run)
        return [_event(row) for row in rows], total or 0

    async def lease(self, ask: AskLease) -> Holder | None:
        """Return who runs a task under a fence; None when it is not to be run any more."""
        fence = (ask.run, ask.node, ask.map_index, ask.attempt, ask.delivery)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_lease"], *fence)
        return None if row is None else Holder(*row)

    async def steps(self, run: int, node: int, map_index: int) -> list[Step]:
        """Return what a task has recorded, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_steps"], run, node, map_index)
        return [step_of(row) for row in rows]

    async def record(self, ask: RecordStep) -> Step | None:
        """Record a step and return what stands in the record; None when the row is to come.

        Raises:
            LeaseLost: The fence is void: somebody else runs the task, or nobody.
        """
        recorded: list[Step | None] = []

        async def record(connection: Connection) -> None:
            recorded[:] = [await self._record(ask, connection)]

        await self._database.in_transaction(record)
        return recorded[0]

    async def has_lease(self, ask: AskConnection) -> bool:
        """Return whether a task is the asker's; False while its row is still to come.

        Raises:
            LeaseLost: The fence is void: somebody else runs the task, or nobody.
        """
        async with self._database.transaction() as connection:
            return await _is_live(ask, connection)

    @staticmethod
    async def _record(ask: RecordStep, connection: Connection) -> Step | None:
        if not await _is_live(ask, connection):
            return None
        place = (ask.run, ask.node, ask.map_index)
        step = ask.step
        row = await connection.fetchrow(
            SQL["record_step"], *place, step.key, step.label, step.kind, step.value,
            error_column(step.error),
        )  # fmt: skip
        return None if row is None else step_of(row)


async def _is_live(ask: RecordStep | AskConnection, connection: Connection) -> bool:
    """Hold the run of a task, and return whether it is the asker's; see `Asked.has_lease`."""
    place = (ask.run, ask.node, ask.map_index)
    if await connection.fetchval(SQL["hold_run"], ask.run) is None:
        raise LeaseLost("the run has ended")
    fence = await connection.fetchrow(SQL["read_fence"], *place)
    if fence is None and not await connection.fetchval(SQL["is_task_done"], *place):
        return False
    if fence is None or tuple(fence) != (ask.attempt, ask.delivery):
        raise LeaseLost("the task was handed out anew, or has ended")
    return True


def _event(row: asyncpg.Record) -> EventInfo:
    task_id = None
    if row["spec"] is not None and row["node"] is not None:
        task_id = _decode_spec(row["spec"]).tasks[row["node"]].task_id
    return EventInfo(
        str(row["event_id"]),
        row["uri"],
        row["extra"],
        row["partition"],
        row["time"],
        row["source"],
        None if row["run_id"] is None else str(row["run_id"]),
        row["dag_id"],
        task_id,
        row["trace"],
    )

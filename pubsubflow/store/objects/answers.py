"""Answers to calls, read once the called run has ended."""

from typing import Any
from uuid import UUID

import anyio.to_thread
import asyncpg
import msgspec
from msgspec import Raw, Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.calls import CallAnswer
from pubsubflow.model.api.resources import TaskErrorView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.codecs import REMOVED_RESULT, decode_error_view
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.objects.results import ReadResults, encode_json
from pubsubflow.store.specs import SpecReader

_INLINE_BYTES = 64 * 1024
_UNFIT = (msgspec.DecodeError, TypeError, ValueError, OverflowError)


class RunFailure(Struct, frozen=True):
    """The failure of a called run.

    Attributes:
        reason: Why it has no result, in one line.
        task: The task that failed first, if one did.
        error: Its error.
    """

    run_id: str
    reason: str
    task: str | None = None
    error: TaskErrorView | None = None


class ReadAnswers:
    """Queries of those who called a DAG.

    Args:
        database: Postgres.
        specs: DAG versions.
        results: Results, those in the result store among them.
    """

    def __init__(self, database: Database, specs: SpecReader, results: ReadResults) -> None:
        self._database = database
        self._specs = specs
        self._results = results

    async def get(self, run_id: UUID) -> CallAnswer | RunFailure:
        """Return the result of a run, its state while it has not ended, or why it failed.

        Raises:
            NotFound: The run is unknown, or its result was pruned.
            InvalidInput: Its DAG has no result, or one that JSON cannot represent.
            ObjectStoreUnavailable: The result store is away.
        """
        async with self._database.connection() as connection:
            run = await connection.fetchrow(SQL["read_called_run"], run_id)
            if run is None:
                raise NotFound("run", str(run_id))
            if not RunState(run["state"]).final:
                return CallAnswer(run_id=str(run_id), state=run["state"])
            spec = (await self._specs.load(connection, [run["version"]]))[run["version"]]
            if run["state"] != RunState.SUCCESS:
                return await _failure(connection, run_id, run, spec)
            node = _result_node(spec)
            rows = await connection.fetch(SQL["read_called_results"], run["id"], node)
        stored = [row["result"] for row in rows if row["state"] == "success"]
        if REMOVED_RESULT in stored:
            raise NotFound("result, as it was pruned, of run", str(run_id))
        results = [await self._decode(run_id, each or b"") for each in stored]
        result: Any = results
        if not spec.tasks[node].mapped:
            result = results[0] if results else None
        return CallAnswer(run_id=str(run_id), state=run["state"], result=result)

    async def of_result(self, run_id: UUID, result: bytes) -> CallAnswer:
        """Return the answer of a run that has succeeded with a result, which is at hand.

        Raises:
            InvalidInput: JSON cannot represent the result.
            ObjectStoreUnavailable: The result store is away.
        """
        value: Any = await self._decode(run_id, result)
        return CallAnswer(run_id=str(run_id), state=RunState.SUCCESS, result=value)

    async def _decode(self, run_id: UUID, result: bytes) -> Raw:
        """Return a result as JSON."""
        data = await self._results.read(result)
        try:
            if len(data) <= _INLINE_BYTES:
                return Raw(encode_json(data))
            return Raw(await anyio.to_thread.run_sync(encode_json, data))
        except _UNFIT as error:
            raise InvalidInput(
                f"JSON cannot represent the result of run {run_id}: {error}"
            ) from error


def _result_node(spec: DagSpec) -> int:
    for task in spec.tasks:
        if task.task_id == spec.result:
            return task.node
    raise InvalidInput(
        f"DAG {spec.dag_id!r} has no result to answer with: name the task that returns it with "
        "DAG(result=…), or read the results of its tasks"
    )


async def _failure(
    connection: Connection, run_id: UUID, run: asyncpg.Record, spec: DagSpec
) -> RunFailure:
    row = await connection.fetchrow(SQL["read_call_failure"], run["id"])
    reason = f"run {run_id} of DAG {run['dag_id']} has the state {run['state']}"
    if row is None:
        return RunFailure(str(run_id), f"{reason}: {run['error']}" if run["error"] else reason)
    index = "" if row["map_index"] == NOT_MAPPED else f".{row['map_index']}"
    task = f"{spec.tasks[row['node']].task_id}{index}"
    error = decode_error_view(row["error"])
    why = "failed" if error is None else f"{error.type}: {error.message}"
    return RunFailure(str(run_id), f"{reason}: task {task}: {why}", task, error)

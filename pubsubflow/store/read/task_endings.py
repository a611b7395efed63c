"""Task endings: the last lines of an attempt's log, which say why it ended or never began."""

from datetime import datetime
from typing import Any

import asyncpg
from msgspec import Struct

from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

_WITHOUT_START = "the task did not start"
_SHOWN_CAUSES = 5


class TaskEnding(Struct, frozen=True):
    """The end of an attempt.

    Attributes:
        at: When it ended; None for one that never began.
        lines: Its traceback and error, or the reason why it never began.
    """

    attempt: int
    at: datetime | None
    lines: list[str]


async def read_ending(
    connection: Connection,
    key: tuple[int, int, int],
    spec: DagSpec,
    attempt: int | None,
    *,
    full: bool,
) -> TaskEnding | None:
    """Return the end of an attempt; None while it goes on, or if it succeeded.

    Args:
        connection: A connection.
        key: Run, node and map index.
        spec: The DAG.
        attempt: Counted from 1; the latest if None.
        full: With the frames of pubsubflow in the traceback.
    """
    row = await connection.fetchrow(SQL["read_task"], *key, 0)
    if row is None or (attempt or row["attempt"]) < row["attempt"]:
        return await _earlier(connection, key, attempt, full=full)
    state = TaskState(row["state"])
    if state is TaskState.UP_FOR_RETRY:
        return await _earlier(connection, key, row["attempt"], full=full)
    if state is TaskState.UPSTREAM_FAILED:
        causes = await _causes(connection, key[0], spec, key[1])
        return TaskEnding(0, row["ended_at"], [f"{_WITHOUT_START}: {causes}"])
    if not state.final or (row["error"] is None and state is not TaskState.SKIPPED):
        return None
    lines = ["skipped"] if row["error"] is None else _error_lines(row["error"], full=full)
    return TaskEnding(row["attempt"], row["ended_at"], lines)


async def _earlier(
    connection: Connection, key: tuple[int, int, int], attempt: int | None, *, full: bool
) -> TaskEnding | None:
    rows = await connection.fetch(SQL["read_attempts"], *key)
    found: list[asyncpg.Record] = [row for row in rows if row["attempt"] == attempt]
    if not found or found[-1]["error"] is None:
        return None
    last = found[-1]
    return TaskEnding(last["attempt"], last["ended_at"], _error_lines(last["error"], full=full))


async def _causes(connection: Connection, run: int, spec: DagSpec, node: int) -> str:
    """Return which of the tasks before one kept it from starting."""
    before = list(spec.tasks[node].upstream)
    rows = await connection.fetch(SQL["read_unsuccessful"], run, before, _SHOWN_CAUSES)
    # Once for all instances of a mapped task.
    found = dict.fromkeys((spec.tasks[row["node"]].task_id, row["state"]) for row in rows)
    causes = (f"{task_id} has the state {state}" for task_id, state in found)
    return ", ".join(causes) or "a task before it failed"


def _error_lines(error: dict[str, Any], *, full: bool) -> list[str]:
    trace = (full and error.get("full_traceback")) or error["traceback"]
    summary = f"{error['type']}: {error['message']}"
    lines = trace.rstrip("\n").split("\n") if trace else []
    return lines if error["message"] in trace else [*lines, summary]

"""Codecs between rows and values that more than one module reads or writes."""

from typing import Any

import asyncpg
import msgspec

from pubsubflow.model.api.resources import TaskErrorView
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import EventInfo, JournalEntry, TaskError

REMOVED_RESULT = b"\xc1"
"""What retention puts in the place of a result: the one byte that MessagePack never uses."""


def encode_error(error: TaskError | None) -> dict[str, Any] | None:
    """Return an error as the value of a jsonb column."""
    return None if error is None else msgspec.structs.asdict(error)


def decode_error_view(stored: dict[str, Any] | None) -> TaskErrorView | None:
    """Return an error as the API shows it."""
    return None if stored is None else msgspec.convert(stored, TaskErrorView)


def decode_journal_entry(row: asyncpg.Record) -> JournalEntry:
    """Return an entry of a task's journal."""
    error = None if row["error"] is None else TaskError(**row["error"])
    return JournalEntry(row["key"], row["label"], row["kind"], row["value"], error)


def decode_event_info(row: asyncpg.Record, spec: DagSpec | None) -> EventInfo:
    """Return a row of `event_info` as an event that tasks see.

    Args:
        row: The row.
        spec: Of the version of the run that emitted it, if a run did.
    """
    task_id = None
    if spec is not None and row["node"] is not None:
        task_id = spec.tasks[row["node"]].task_id
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

"""Values as columns, and back."""

from typing import Any

import asyncpg
import msgspec

from pubsubflow.model.wire.messages import Step, TaskError


def error_column(error: TaskError | None) -> dict[str, Any] | None:
    """Return an error as it is stored."""
    return None if error is None else msgspec.structs.asdict(error)


def step_of(row: asyncpg.Record) -> Step:
    """Return an entry of a task's record."""
    error = None if row["error"] is None else TaskError(**row["error"])
    return Step(row["key"], row["label"], row["kind"], row["value"], error)

"""Reads what lineage tells of a run."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from pubsubflow.model.api.resources import TaskErrorView
from pubsubflow.model.lineage import Origin, TracedAttempt, TracedRun
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import Specs


class ReadLineage:
    """Queries for lineage."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = Specs()

    async def run(self, run_id: UUID) -> TracedRun | None:
        """Return a run, with its attempts once it has ended; None if there is none by that id.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_traced_run"], run_id)
            if row is None:
                return None
            specs = await self._specs.load(connection, [row["version"]])
            sources = await connection.fetch(SQL["read_traced_sources"], row["id"])
            state = RunState(row["state"])
            attempts = await _attempts(connection, row["id"]) if state.final else ()
        return TracedRun(
            run_id=run_id,
            spec=specs[row["version"]],
            state=state,
            logical_time=row["logical_time"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            error=row["error"],
            consumed=tuple(dict.fromkeys(source["uri"] for source in sources)),
            origins=_origins(sources),
            attempts=attempts,
        )


def _origins(sources: Sequence[asyncpg.Record]) -> tuple[Origin, ...]:
    known = (source for source in sources if source["run_id"] is not None)
    return tuple(
        sorted({Origin(source["dag_id"], UUID(str(source["run_id"]))) for source in known})
    )


async def _attempts(connection: Connection, run: int) -> tuple[TracedAttempt, ...]:
    rows = await connection.fetch(SQL["read_traced_attempts"], run)
    emitted: dict[tuple[int, int, int], list[str]] = {}
    for output in await connection.fetch(SQL["read_traced_outputs"], run):
        key = (output["node"], output["map_index"], output["attempt"])
        emitted.setdefault(key, []).append(output["uri"])
    return tuple(
        TracedAttempt(
            node=row["node"],
            map_index=row["map_index"],
            attempt=row["attempt"],
            state=TaskState(row["state"]),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            emitted=tuple(emitted.get((row["node"], row["map_index"], row["attempt"]), ())),
            error=_error(row["error"]),
        )
        for row in rows
    )


def _error(stored: dict[str, Any] | Sequence[Any] | None) -> TaskErrorView | None:
    """Return an error as it was stored: by field names, or in the order of the wire."""
    if stored is None:
        return None
    if not isinstance(stored, dict):
        stored = dict(zip(TaskErrorView.__struct_fields__, stored, strict=False))
    return msgspec.convert(stored, TaskErrorView)

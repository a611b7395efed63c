"""Lineage of a run: inputs, outputs and attempts."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from pubsubflow.model.lineage import AttemptLineage, ParentRun, RunLineage
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.store.codecs import decode_error_view
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader


class ReadLineage:
    """Queries for lineage."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def run(self, run_id: UUID) -> RunLineage | None:
        """Return a run, with its attempts once it has ended; None for an unknown id.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_lineage_run"], run_id)
            if row is None:
                return None
            specs = await self._specs.load(connection, [row["version"]])
            sources = await connection.fetch(SQL["read_lineage_sources"], row["id"])
            state = RunState(row["state"])
            attempts = await _attempts(connection, row["id"]) if state.final else ()
        return RunLineage(
            run_id=run_id,
            spec=specs[row["version"]],
            state=state,
            logical_time=row["logical_time"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            error=row["error"],
            consumed=tuple(dict.fromkeys(source["uri"] for source in sources)),
            parents=_parents(sources),
            attempts=attempts,
        )


def _parents(sources: Sequence[asyncpg.Record]) -> tuple[ParentRun, ...]:
    known = (source for source in sources if source["run_id"] is not None)
    return tuple(
        sorted({ParentRun(source["dag_id"], UUID(str(source["run_id"]))) for source in known})
    )


async def _attempts(connection: Connection, run: int) -> tuple[AttemptLineage, ...]:
    rows = await connection.fetch(SQL["read_lineage_attempts"], run)
    emitted: dict[tuple[int, int, int], list[str]] = {}
    for output in await connection.fetch(SQL["read_lineage_outputs"], run):
        key = (output["node"], output["map_index"], output["attempt"])
        emitted.setdefault(key, []).append(output["uri"])
    return tuple(
        AttemptLineage(
            node=row["node"],
            map_index=row["map_index"],
            attempt=row["attempt"],
            state=TaskState(row["state"]),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            emitted=tuple(emitted.get((row["node"], row["map_index"], row["attempt"]), ())),
            error=decode_error_view(row["error"]),
        )
        for row in rows
    )

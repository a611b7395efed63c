"""The manager's transaction: queries of `sql/manager.sql`, rows in and rows out.

Rows are passed by columns (`unnest`), so that a batch of any size is one statement.
"""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import asyncpg

from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

Row = asyncpg.Record
Rows = Sequence[Sequence[Any]]
BATCH = {
    "events": 13,
    "runs": 13,
    "run_events": 3,
    "removed_tasks": 3,
    "ended_tasks": 14,
    "live_tasks": 10,
    "opened_runs": 6,
    "progressed_runs": 2,
    "closed_runs": 3,
    "pending": 4,
    "condition_states": 4,
    "dag_states": 5,
    "changes": 1,
}
"""Parts of `write_batch`, in the order of its arguments: name → number of columns."""


class ManagerTransaction:
    """Queries of one transaction on one connection.

    Args:
        connection: The connection.
        timed: Called with the seconds of each statement.
    """

    def __init__(
        self, connection: Connection, timed: Callable[[float], None] | None = None
    ) -> None:
        self._connection = connection
        self._timed = timed

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Run a named query and return its rows."""
        since = perf_counter()
        rows: list[Row] = await self._connection.fetch(SQL[query], *arguments)
        if self._timed is not None:
            self._timed(perf_counter() - since)
        return rows

    async def write(self, query: str, rows: Rows) -> None:
        """Run a named query over rows, unless there are none."""
        if rows:
            await self.fetch(query, *map(list, zip(*rows, strict=True)))

    async def fetch_rows(self, query: str, rows: Rows) -> list[Row]:
        """Run a named query over rows, unless there are none, and return its rows."""
        return await self.fetch(query, *map(list, zip(*rows, strict=True))) if rows else []

    async def lock_runs(self, runs: Iterable[int]) -> list[Row]:
        """Lock live runs in order: run, dag, version, progress, info, source."""
        # Every manager locks in this order, so two batches with common runs cannot deadlock.
        ids = sorted(set(runs))
        return await self.fetch("lock_runs", ids) if ids else []

    async def allocate_event_ids(
        self, count: int, states: Sequence[tuple[int, str]], datasets: Sequence[int]
    ) -> tuple[list[int], list[Row], bool]:
        """Allocate ids for events; return them, condition states, and a hint about waits.

        Args:
            count: Number of ids.
            states: Condition states to read as well, (dag, partition key).
            datasets: Of the events.

        Returns:
            The ids; the rows of the states that exist; whether a wait may match one of the events.
        """
        dags, keys = [dag for dag, _ in states], [key for _, key in states]
        rows = await self.fetch("allocate_event_ids", count, dags, keys, datasets)
        ids = sorted(row["id"] for row in rows if row["id"])
        return ids, [row for row in rows if row["id"] is None], any(row["id"] == 0 for row in rows)

    async def write_batch(self, **parts: Rows) -> None:
        """Write what nearly every batch changes, in one statement.

        Args:
            parts: Rows under each of the names in `BATCH`.
        """
        if any(parts.values()):
            columns: list[list[Any]] = []
            for name, width in BATCH.items():
                rows = parts[name]
                columns += map(list, zip(*rows, strict=True)) if rows else [[]] * width
            await self.fetch("write_batch", *columns)

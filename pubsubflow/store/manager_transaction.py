"""The manager's transaction: one method a query of `sql/fold.sql`, rows in and rows out.

Rows are written column-wise (`unnest`), so a batch of any size is one statement.
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
    "events": 12,
    "runs": 12,
    "run_events": 3,
    "removed_tasks": 3,
    "ended_tasks": 12,
    "live_tasks": 10,
    "opened_runs": 5,
    "progressed_runs": 2,
    "closed_runs": 3,
    "pending": 4,
    "cells": 4,
    "gates": 5,
    "news": 1,
    "traces": 1,
}
"""The parts of `write_batch`, in the order of its arguments: name → number of columns."""


class FoldTransaction:
    """Queries of one transaction on one connection; see `sql/fold.sql` for each.

    Args:
        connection: The connection.
        timed: Called with the seconds that each statement took.
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
        """Run a named query over rows, passed as columns; nothing happens without rows."""
        if rows:
            await self.fetch(query, *map(list, zip(*rows, strict=True)))

    async def fetch_rows(self, query: str, rows: Rows) -> list[Row]:
        """Run a named query over rows, passed as columns, and return what it answers."""
        return await self.fetch(query, *map(list, zip(*rows, strict=True))) if rows else []

    async def lock_runs(self, runs: Iterable[int]) -> list[Row]:
        """Lock live runs in order: run, dag, version, progress, info."""
        numbers = sorted(set(runs))
        return await self.fetch("lock_runs", numbers) if numbers else []

    async def number_events(
        self, count: int, cells: Sequence[tuple[int, str]], datasets: Sequence[int]
    ) -> tuple[list[int], list[Row], bool]:
        """Take ids for events; return them, the cells (dag, key) that exist, and a hint.

        The hint is whether somebody may wait for an event of one of the datasets.
        """
        dags, keys = [dag for dag, _ in cells], [key for _, key in cells]
        rows = await self.fetch("number_events", count, dags, keys, datasets)
        ids = sorted(row["id"] for row in rows if row["id"])
        return ids, [row for row in rows if row["id"] is None], any(row["id"] == 0 for row in rows)

    async def write_batch(self, **parts: Rows) -> None:
        """Write what nearly every batch changes, in one statement; see `write_batch` there.

        Args:
            parts: Rows by the names of `BATCH`; all of them.
        """
        if any(parts.values()):
            columns: list[list[Any]] = []
            for name, width in BATCH.items():
                rows = parts[name]
                columns += map(list, zip(*rows, strict=True)) if rows else [[]] * width
            await self.fetch("write_batch", *columns)

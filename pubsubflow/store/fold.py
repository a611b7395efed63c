"""The manager's transaction: one method a query of `sql/fold.sql`, rows in and rows out.

Rows are written column-wise (`unnest`), so a batch of any size is one statement.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from pubsubflow.store.database import Connection
from pubsubflow.store.queries import SQL

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
}
"""The parts of `write_batch`, in the order of its arguments: name → number of columns."""


class FoldTransaction:
    """Queries of one transaction on one connection; see `sql/fold.sql` for each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Run a named query and return its rows."""
        rows: list[Row] = await self._connection.fetch(SQL[query], *arguments)
        return rows

    async def write(self, query: str, rows: Rows) -> None:
        """Run a named query over rows, passed as columns; nothing happens without rows."""
        if rows:
            await self._connection.fetch(SQL[query], *map(list, zip(*rows, strict=True)))

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
            await self._connection.fetch(SQL["write_batch"], *columns)

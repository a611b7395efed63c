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

    async def take_event_ids(self, count: int) -> list[int]:
        """Take ids for events, in the order of the log."""
        return [row[0] for row in await self.fetch("take_event_ids", count)]

"""The change log, read in a stable order.

Rows get their ids before they are committed, so a row may appear after others with higher ids.
Everything read here is settled: no row can appear before it any more.
"""

from collections.abc import Iterable

import anyio
from msgspec import Struct

from pubsubflow.model.changes import ChangeRecord, decode_records
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_HIGHEST = 2**62
_MAX_BYTES = 1024 * 1024
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


class ChangeRow(Struct, frozen=True):
    """The changes of one transaction."""

    number: int
    records: tuple[ChangeRecord, ...]


class ChangePage(Struct, frozen=True):
    """A part of the change log.

    Attributes:
        log: The log's name.
        pruned_through: The id of the last pruned row.
        last: The last id allocated; its row may not be committed yet.
        rows: In order.
    """

    log: str
    pruned_through: int
    last: int
    rows: list[ChangeRow]


class ReadChanges:
    """Queries of the change log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, first: int, last: int, limit: int, max_bytes: int = _MAX_BYTES
    ) -> ChangePage:
        """Return rows with ids from `first` to `last`; their order is stable if `last` is settled.

        At most `limit` rows, and about `max_bytes`.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_changes"], first, last, limit, max_bytes)
        found = [ChangeRow(row["id"], decode_records(row["body"])) for row in rows if row["id"]]
        head = rows[0]
        return ChangePage(head["name"], head["pruned_through"], head["last"], found)

    async def head(self) -> ChangePage:
        """Return the head of the log, without rows, once all allocated ids are settled.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        # No row has this id, so the page has the head alone.
        page = await self.page(_HIGHEST, _HIGHEST, 1)
        await self._await_writers()
        return page

    async def after(self, settled: int, limit: int) -> ChangePage:
        """Return the next settled rows after row `settled`, up to which all is settled.

        A gap in the ids is a row that is still to come, or that never will, as its transaction
        failed. This is known once all transactions have ended that were writing when the gap was
        seen: each locks the table before it allocates an id, and until its row is visible.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        page = await self.page(settled + 1, _HIGHEST, limit)
        if not page.rows:
            return page
        solid = _rows_before_gap(page.rows, settled)
        if solid:
            return ChangePage(page.log, page.pruned_through, page.last, solid)
        bound = page.rows[-1].number
        await self._await_writers()
        # Read again: rows that were missing may be there now, and those still missing never come.
        return await self.page(settled + 1, bound, limit)

    async def _await_writers(self) -> None:
        """Wait until the transactions that are writing now have ended."""
        writers = await self._writers()
        pause = _FIRST_PAUSE_SECONDS
        while writers:
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            writers &= await self._writers()

    async def _writers(self) -> set[str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["find_change_writers"])
        return {row["virtualtransaction"] for row in rows}


def _rows_before_gap(rows: Iterable[ChangeRow], settled: int) -> list[ChangeRow]:
    """Return the rows before the first gap."""
    found = []
    for row in rows:
        if row.number != settled + 1:
            break
        settled += 1
        found.append(row)
    return found

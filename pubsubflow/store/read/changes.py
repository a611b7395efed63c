"""Reading the log of what happened, in an order that stays.

Rows get their numbers before they are committed, so one may appear after others with higher
numbers. What is read here is settled: nothing can appear before it any more.
"""

from collections.abc import Iterable

import anyio
from msgspec import Struct

from pubsubflow.model.changes import Item, decode_items
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_HIGHEST = 2**62
_MAX_BYTES = 1024 * 1024
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


class NewsRow(Struct, frozen=True):
    """What one transaction told."""

    number: int
    items: tuple[Item, ...]


class NewsPage(Struct, frozen=True):
    """A part of the log.

    Attributes:
        log: The log's name.
        forgotten: The last row that is no more.
        last: The last number that was given out; its row may not be there yet.
        rows: In order.
    """

    log: str
    forgotten: int
    last: int
    rows: list[NewsRow]


class ReadNews:
    """Queries of the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, first: int, last: int, limit: int, max_bytes: int = _MAX_BYTES
    ) -> NewsPage:
        """Return rows with numbers from `first` to `last`; their order stays if `last` is settled.

        Not all of them, if they are more than `limit`, or about `max_bytes`.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_news"], first, last, limit, max_bytes)
        found = [NewsRow(row["id"], decode_items(row["body"])) for row in rows if row["id"]]
        head = rows[0]
        return NewsPage(head["name"], head["forgotten"], head["last"], found)

    async def head(self) -> NewsPage:
        """Return the log as it stands, without rows, once all numbers given out are settled.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        page = await self.page(_HIGHEST, _HIGHEST, 1)
        await self._await_writers()
        return page

    async def after(self, settled: int, limit: int) -> NewsPage:
        """Return the next settled rows after row `settled`, up to which all is settled.

        A gap is a row that is still to come, or never will: that is known once all those have
        ended who were writing when the gap was seen. A writer has its lock on the table before
        it takes a number, and keeps it until what it wrote is visible.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        page = await self.page(settled + 1, _HIGHEST, limit)
        if not page.rows:
            return page
        solid = _solid(page.rows, settled)
        if solid:
            return NewsPage(page.log, page.forgotten, page.last, solid)
        bound = page.rows[-1].number
        await self._await_writers()
        return await self.page(settled + 1, bound, limit)

    async def _await_writers(self) -> None:
        """Return when those who write now have ended."""
        writers = await self._writers()
        pause = _FIRST_PAUSE_SECONDS
        while writers:
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            writers &= await self._writers()

    async def _writers(self) -> set[str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_news_writers"])
        return {row["virtualtransaction"] for row in rows}


def _solid(rows: Iterable[NewsRow], settled: int) -> list[NewsRow]:
    """Return the rows up to the first gap."""
    found = []
    for row in rows:
        if row.number != settled + 1:
            break
        settled += 1
        found.append(row)
    return found

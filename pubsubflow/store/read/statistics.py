"""What is not finished, counted for those who watch over it."""

from msgspec import Struct

from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

MOST_ROWS = 100_000
"""Rows of a table that are looked at: what there is beyond that is not counted."""

LETTERS = ("message", "params", "loop", "hook")
"""Kinds of dead letters."""


class Amount(Struct, frozen=True):
    """How much of something there is.

    Attributes:
        what: `tasks`, `waits`, `timers`, `letters`, `runs` …; see `read_backlog`.
        label: State or kind; empty where there is no such distinction.
        number: How many, at most `MOST_ROWS` counted.
        oldest_seconds: Age of the oldest, where that says something.
    """

    what: str
    label: str
    number: int
    oldest_seconds: float | None


async def read_backlog(database: Database) -> list[Amount]:
    """Return how much is not finished.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(SQL["read_backlog"], MOST_ROWS)
    return [Amount(r["what"], r["label"], r["number"] or 0, r["oldest_seconds"]) for r in rows]

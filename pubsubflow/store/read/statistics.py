"""Statistics of unfinished work, for the metrics."""

from msgspec import Struct

from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

# Bounds the time of a scrape, whatever piles up.
MAX_ROWS = 100_000
"""Rows of a table that are counted at most."""

DEAD_LETTER_KINDS = ("message", "params", "loop", "hook")
"""Kinds of dead letters that always have a metric."""


class Statistic(Struct, frozen=True):
    """A count of unfinished work.

    Attributes:
        subject: `tasks`, `waits`, `timers`, `dead_letters`, `runs` …; see `sql/statistics.sql`.
        label: State or kind; empty for subjects that have neither.
        number: The count, of at most `MAX_ROWS` rows.
        oldest_seconds: Age of the oldest, for subjects that have an age.
    """

    subject: str
    label: str
    number: int
    oldest_seconds: float | None


async def read_statistics(database: Database) -> list[Statistic]:
    """Return the statistics of all unfinished work.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(SQL["read_statistics"], MAX_ROWS)
    return [
        Statistic(row["subject"], row["label"], row["number"] or 0, row["oldest_seconds"])
        for row in rows
    ]

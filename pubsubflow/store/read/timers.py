"""Timers in the order in which they are due; the manager sets and claims them."""

from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL


class Timers:
    """Queries about timers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upcoming(self, limit: int = 500) -> list[Timer]:
        """Return the timers that are due next."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_due_timers"], limit)
        return [
            Timer(
                row["due_at"],
                row["kind"],
                row["dag"],
                row["run"],
                row["node"],
                row["map_index"],
                row["attempt"],
                row["key"],
                row["id"],
            )
            for row in rows
        ]

"""The stored timers."""

from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL


class Timers:
    """Reads timers; they are set and taken in the manager's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upcoming(self, limit: int = 500) -> list[Timer]:
        """Return the timers that are due first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_timers"], limit)
        return [
            Timer(
                row["due_at"],
                row["kind"],
                row["dag"],
                row["run"],
                row["node"],
                row["map_index"],
                row["attempt"],
                row["cell"],
                row["id"],
            )
            for row in rows
        ]

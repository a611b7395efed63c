"""Workers that are alive, by their heartbeats, and managers, by their ranks."""

from pubsubflow.model.api.server import WorkerView
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL


class ReadWorkers:
    """Queries about workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[WorkerView]:
        """Return the workers that have not signed off."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_workers"])
        return [WorkerView(**dict(row)) for row in rows]


async def list_worker_names(database: Database) -> list[str]:
    """Return the names of the workers that have not signed off."""
    async with database.connection() as connection:
        return [row["worker"] for row in await connection.fetch(SQL["list_worker_names"])]


async def has_managers(database: Database) -> bool:
    """Return whether any daemon's manager is connected to Postgres."""
    async with database.connection() as connection:
        found: bool = await connection.fetchval(SQL["has_managers"])
    return found

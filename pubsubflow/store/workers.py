"""The workers that told of themselves."""

from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL


async def list_workers(database: Database) -> list[str]:
    """Return the names of all workers that have not said farewell."""
    async with database.connection() as connection:
        return [row["worker"] for row in await connection.fetch(SQL["list_workers"])]

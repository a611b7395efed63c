"""The system as the database knows it: sizes, the history that is kept, who does what."""

from msgspec import Struct

from pubsubflow.model.api.overviews.system import (
    DatabaseView,
    LeaseView,
    SliceView,
    TableSizeView,
    TriggererView,
)
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

SHOWN_TABLES = 15


class StoredSystem(Struct, frozen=True):
    """What the database knows of the system."""

    database: DatabaseView
    slices: list[SliceView]
    triggerers: list[TriggererView]
    leases: list[LeaseView]


class ReadSystem:
    """Queries about the system."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> StoredSystem:
        """Return sizes, the history that is kept, triggerers and leases."""
        async with self._database.connection() as connection:
            (size,) = await connection.fetch(SQL["read_database_size"])
            tables = await connection.fetch(SQL["list_table_sizes"], SHOWN_TABLES)
            slices = await connection.fetch(SQL["list_begun_slices"])
            triggerers = await connection.fetch(SQL["list_triggerers"])
            leases = await connection.fetch(SQL["list_leases"])
        return StoredSystem(
            DatabaseView(**dict(size), tables=[TableSizeView(**dict(row)) for row in tables]),
            [SliceView(**dict(row)) for row in slices],
            [TriggererView(**dict(row)) for row in triggerers],
            [LeaseView(**dict(row)) for row in leases],
        )

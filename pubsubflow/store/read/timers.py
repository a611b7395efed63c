"""Timers in the order in which they are due; the manager sets and claims them."""

from datetime import datetime

from msgspec import Struct

from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader


class StoredTick(Struct, frozen=True):
    """The timer of a tick.

    Attributes:
        slot: Which timetable of the schedule ticks.
        spec: The version of its DAG that is in force.
    """

    id: int
    due_at: datetime
    slot: int
    spec: DagSpec


class Timers:
    """Queries about timers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def ticks(self) -> list[StoredTick]:
        """Return the timers of all ticks."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_ticks"])
            specs = await self._specs.load(connection, {row["version"] for row in rows})
        return [
            StoredTick(row["id"], row["due_at"], row["slot"], specs[row["version"]])
            for row in rows
            if row["version"] in specs
        ]

    async def mend(self) -> int:
        """Bring back timers and waits that were set while the clock was ahead; return how many."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["mend_event_waits"])
            timers: int = await connection.fetchval(SQL["mend_timers"])
        return timers

    async def move(self, tick: StoredTick, due_at: datetime) -> None:
        """Make a tick due at another moment, unless it was claimed meanwhile."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["move_tick"], tick.id, tick.due_at, due_at)

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

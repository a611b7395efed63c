"""Leases of triggers: who runs which."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import asyncpg
from msgspec import Struct

from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.named_queries import SQL


class Leased(Struct, frozen=True):
    """A trigger that this triggerer runs.

    Attributes:
        number: Its id.
        epoch: Of the lease.
        data: Its encoded fields.
        position: Of a watched dataset, encoded.
        error: Why a watch was started again last, if so.

    The others are the columns of the table `trigger`.
    """

    number: int
    epoch: int
    kind: str
    name: str
    data: bytes
    share: str | None
    run: int
    node: int
    map_index: int
    delivery: int
    slot: int
    position: bytes
    sequence: int
    error: str | None
    created_at: datetime


class Sums(Struct, frozen=True):
    """What tells two sets of leases apart: their number, the sums of ids and of epochs."""

    number: int
    ids: int
    epochs: int

    @classmethod
    def of(cls, leases: Mapping[int, int]) -> "Sums":
        """Add up leases, number → epoch."""
        return cls(len(leases), sum(leases), sum(leases.values()))


class TriggerLeases:
    """The leases of one triggerer.

    Args:
        database: Where they are.
        name: The triggerer's, which no other has.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def register(self, *, host: str, pid: int, capacity: int) -> None:
        """Note that the triggerer lives; without that it is given nothing."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["register_triggerer"], self._name, host, pid, capacity)

    async def beat(self, running: int) -> int:
        """Note that it lives; return how many do, itself included.

        That is 0 if it was declared dead, and so has no triggers any more.
        """
        async with self._database.connection() as connection:
            found = await connection.fetchval(SQL["beat_triggerer"], self._name, running)
        return found or 0

    async def claim(self, limit: int) -> list[Leased]:
        """Take triggers that nobody runs."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["claim_triggers"], self._name, limit)
        return _leased(rows)

    async def claim_cancelled(self, limit: int, known: Collection[int]) -> list[Leased]:
        """Take cancelled triggers that nobody runs or that are its own, but for known ones."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["claim_cancelled_triggers"], self._name, limit, list(known)
            )
        return _leased(rows)

    async def sums(self) -> Sums:
        """Add up its leases."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["sum_leases"], self._name)
        return Sums(**dict(row or {}))

    async def held(self) -> dict[int, int]:
        """Return its leases, number → epoch."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_leases"], self._name)
        return {row["id"]: row["epoch"] for row in rows}

    async def free_silent(self, seconds: float) -> dict[str, int]:
        """Take the triggers away from triggerers that were silent; return them by name."""
        freed: dict[str, int] = {}

        async def work(connection: Connection) -> None:
            rows = await connection.fetch(SQL["bury_triggerers"], seconds)
            for name in sorted(row["name"] for row in rows):
                freed[name] = len(await connection.fetch(SQL["free_triggers"], [name]))

        await self._database.in_transaction(work)
        return freed

    async def give_back(self, numbers: Iterable[int]) -> None:
        """Give some triggers back."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["give_back_triggers"], self._name, list(numbers))

    async def resign(self) -> int:
        """Give all triggers back for good; return how many."""
        freed = 0

        async def work(connection: Connection) -> None:
            nonlocal freed
            await connection.execute(SQL["bury_triggerer"], self._name)
            freed = len(await connection.fetch(SQL["free_triggers"], [self._name]))

        await self._database.in_transaction(work)
        return freed

    async def remove(self, numbers: Iterable[int]) -> None:
        """Remove cancelled triggers that have cleaned up."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["remove_cancelled_triggers"], self._name, list(numbers))

    async def note_errors(self, errors: Mapping[int, str | None]) -> None:
        """Note why watches had to be started again; None for those that are well."""
        texts = [None if text is None else printable(text) for text in errors.values()]
        async with self._database.connection() as connection:
            await connection.execute(SQL["note_trigger_errors"], self._name, list(errors), texts)


async def free_all_triggers(database: Database) -> None:
    """Take all triggers away from all triggerers: it is known that none of these lives."""

    async def work(connection: Connection) -> None:
        rows = await connection.fetch(SQL["bury_all_triggerers"])
        await connection.fetch(SQL["free_triggers"], [row["name"] for row in rows])

    await database.in_transaction(work)


def _leased(rows: Iterable[asyncpg.Record]) -> list[Leased]:
    def number(row: asyncpg.Record, column: str) -> int:
        return -1 if row[column] is None else row[column]

    return [
        Leased(
            number=row["id"],
            epoch=row["epoch"],
            kind=row["kind"],
            name=row["name"],
            data=row["data"],
            share=row["share"],
            run=number(row, "run"),
            node=number(row, "node"),
            map_index=number(row, "map_index"),
            delivery=number(row, "delivery"),
            slot=number(row, "slot"),
            position=row["position"] or b"\xc0",
            sequence=row["sequence"],
            error=row["error"],
            created_at=row["created_at"],
        )
        for row in rows
    ]

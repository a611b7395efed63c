"""Leases of triggers, held by triggerers."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import asyncpg
from msgspec import Struct

from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.named_queries import SQL


class LeasedTrigger(Struct, frozen=True):
    """A trigger that a triggerer has leased.

    Attributes:
        number: Its id.
        epoch: Of the lease.
        data: Its encoded fields.
        position: Of a watched dataset, encoded.
        error: Why a watch was restarted last, if it was.

    The other attributes are columns of the table `trigger`.
    """

    number: int
    epoch: int
    kind: str
    name: str
    data: bytes
    share_key: str | None
    run: int
    node: int
    map_index: int
    delivery: int
    wait_index: int
    position: bytes
    sequence: int
    error: str | None
    created_at: datetime


class LeaseChecksum(Struct, frozen=True):
    """A checksum of a set of leases: their number, the sums of their ids and of their epochs."""

    number: int
    ids: int
    epochs: int

    @classmethod
    def of(cls, leases: Mapping[int, int]) -> "LeaseChecksum":
        """Return the checksum of leases, number → epoch."""
        return cls(len(leases), sum(leases), sum(leases.values()))


class TriggerLeases:
    """The leases of one triggerer.

    Args:
        database: Postgres.
        name: The triggerer's unique name.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def register(self, *, host: str, pid: int, capacity: int) -> None:
        """Register the triggerer; before that it can claim nothing."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["register_triggerer"], self._name, host, pid, capacity)

    async def heartbeat(self, running: int) -> int:
        """Record a heartbeat; return the number of triggerers, this one included.

        It is 0 if this one was declared dead, and so has lost its triggers.
        """
        async with self._database.connection() as connection:
            found = await connection.fetchval(SQL["heartbeat_triggerer"], self._name, running)
        return found or 0

    async def claim(self, limit: int) -> list[LeasedTrigger]:
        """Claim unowned triggers."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["claim_triggers"], self._name, limit)
        return _leased(rows)

    async def claim_cancelled(self, limit: int, known: Collection[int]) -> list[LeasedTrigger]:
        """Claim cancelled triggers that are unowned or its own already, except known ones."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["claim_cancelled_triggers"], self._name, limit, list(known)
            )
        return _leased(rows)

    async def checksum(self) -> LeaseChecksum:
        """Return the checksum of its leases."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["sum_trigger_leases"], self._name)
        return LeaseChecksum(**dict(row or {}))

    async def list_leases(self) -> dict[int, int]:
        """Return its leases: number → epoch."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_trigger_leases"], self._name)
        return {row["id"]: row["epoch"] for row in rows}

    async def release_silent(self, seconds: float) -> dict[str, int]:
        """Delete silent triggerers and release their triggers; return name → number of triggers."""
        freed: dict[str, int] = {}

        async def work(connection: Connection) -> None:
            # The triggerer goes before its triggers: from then on it can claim no others.
            rows = await connection.fetch(SQL["delete_silent_triggerers"], seconds)
            for name in sorted(row["name"] for row in rows):
                freed[name] = len(await connection.fetch(SQL["release_triggers_of"], [name]))

        await self._database.in_transaction(work)
        return freed

    async def release(self, trigger_ids: Iterable[int]) -> None:
        """Release some triggers."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["release_triggers"], self._name, list(trigger_ids))

    async def deregister(self) -> int:
        """Deregister the triggerer and release all its triggers; return their number."""
        freed = 0

        async def work(connection: Connection) -> None:
            nonlocal freed
            await connection.execute(SQL["delete_triggerer"], self._name)
            freed = len(await connection.fetch(SQL["release_triggers_of"], [self._name]))

        await self._database.in_transaction(work)
        return freed

    async def delete_cancelled(self, trigger_ids: Iterable[int]) -> None:
        """Delete cancelled triggers that have cleaned up."""
        async with self._database.connection() as connection:
            await connection.execute(
                SQL["delete_cancelled_triggers"], self._name, list(trigger_ids)
            )

    async def record_errors(self, errors: Mapping[int, str | None]) -> None:
        """Record why watches were restarted; None for those that run well."""
        texts = [None if text is None else printable(text) for text in errors.values()]
        async with self._database.connection() as connection:
            await connection.execute(SQL["record_trigger_errors"], self._name, list(errors), texts)


async def release_all_triggers(database: Database) -> None:
    """Release all triggers, when it is certain that no triggerer is alive."""

    async def work(connection: Connection) -> None:
        rows = await connection.fetch(SQL["delete_all_triggerers"])
        await connection.fetch(SQL["release_triggers_of"], [row["name"] for row in rows])

    await database.in_transaction(work)


def _leased(rows: Iterable[asyncpg.Record]) -> list[LeasedTrigger]:
    def number(row: asyncpg.Record, column: str) -> int:
        return -1 if row[column] is None else row[column]

    return [
        LeasedTrigger(
            number=row["id"],
            epoch=row["epoch"],
            kind=row["kind"],
            name=row["name"],
            data=row["data"],
            share_key=row["share_key"],
            run=number(row, "run"),
            node=number(row, "node"),
            map_index=number(row, "map_index"),
            delivery=number(row, "delivery"),
            wait_index=number(row, "wait_index"),
            position=row["position"] or b"\xc0",  # nil in msgpack
            sequence=row["sequence"],
            error=row["error"],
            created_at=row["created_at"],
        )
        for row in rows
    ]

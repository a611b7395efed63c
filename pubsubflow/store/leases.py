"""Leases for what only one of several daemons may do."""

from collections.abc import Sequence

from pubsubflow.errors import LeaseLost
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

SUBSCRIPTIONS = "subscriptions"


class Lease:
    """One lease, held by one daemon at a time.

    Args:
        database: Where it is.
        name: Of the lease.
        owner: The daemon's unique name.
    """

    def __init__(self, database: Database, name: str, owner: str) -> None:
        self._database = database
        self._name = name
        self._owner = owner
        self._epoch = 0

    async def acquire(self, silent_seconds: float) -> bool:
        """Acquire the lease if it is free or its owner was silent for so long; return whether."""
        async with self._database.connection() as connection:
            epoch = await connection.fetchval(
                SQL["acquire_lease"], self._name, self._owner, silent_seconds
            )
        # Epoch 0 matches no row: a lease that was not acquired cannot be renewed or locked.
        self._epoch = epoch or 0
        return epoch is not None

    async def renew(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLost: Another daemon has acquired it.
        """
        async with self._database.connection() as connection:
            await self._check(connection, "renew_lease")

    async def lock(self, connection: Connection) -> None:
        """Block a takeover until the transaction on the connection ends.

        Raises:
            LeaseLost: Another daemon has acquired it.
        """
        await self._check(connection, "lock_lease")

    async def release(self) -> None:
        """Release the lease."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["release_lease"], self._name, self._owner, self._epoch)

    async def _check(self, connection: Connection, query: str) -> None:
        if await connection.fetchval(SQL[query], self._name, self._owner, self._epoch) is None:
            raise LeaseLost(f"another daemon has acquired the lease {self._name}")


async def revoke_lease(database: Database, name: str) -> None:
    """Revoke a lease, when it is certain that no owner is alive."""
    async with database.connection() as connection:
        await connection.execute(SQL["revoke_lease"], name)


async def release_leases(database: Database, owners: Sequence[str]) -> None:
    """Release all leases of owners that are gone."""
    async with database.connection() as connection:
        await connection.execute(SQL["release_leases_of"], list(owners))

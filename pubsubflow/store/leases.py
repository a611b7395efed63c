"""Leases: who of several daemons does what only one may do."""

from pubsubflow.errors import LeaseLost
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

SUBSCRIPTIONS = "subscriptions"


class Lease:
    """One lease, as one daemon sees it.

    Args:
        database: Where it is.
        name: Of what it gives the right to do.
        owner: The daemon's name, which no other has.
    """

    def __init__(self, database: Database, name: str, owner: str) -> None:
        self._database = database
        self._name = name
        self._owner = owner
        self._epoch = 0

    async def take(self, silent_seconds: float) -> bool:
        """Take it if it is free or its owner was silent for so long; return whether it is ours."""
        async with self._database.connection() as connection:
            epoch = await connection.fetchval(
                SQL["take_lease"], self._name, self._owner, silent_seconds
            )
        self._epoch = epoch or 0
        return epoch is not None

    async def keep(self) -> None:
        """Note that we live.

        Raises:
            LeaseLost: Somebody else has taken it.
        """
        async with self._database.connection() as connection:
            await self._check(connection, "keep_lease")

    async def hold(self, connection: Connection) -> None:
        """Let nobody take it over before the transaction on the connection ends.

        Raises:
            LeaseLost: Somebody else has taken it.
        """
        await self._check(connection, "hold_lease")

    async def leave(self) -> None:
        """Give it back."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["leave_lease"], self._name, self._owner, self._epoch)

    async def _check(self, connection: Connection, query: str) -> None:
        if await connection.fetchval(SQL[query], self._name, self._owner, self._epoch) is None:
            raise LeaseLost(f"another daemon has taken over {self._name}")


async def free_lease(database: Database, name: str) -> None:
    """Take a lease away from whoever has it: it is known that none of these lives."""
    async with database.connection() as connection:
        await connection.execute(SQL["free_lease"], name)

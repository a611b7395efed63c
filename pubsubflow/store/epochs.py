"""Epochs of the database: the identity that shows a restore, and the begin of a new epoch."""

from msgspec import Struct

from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.runs.fences import (
    DELIVERIES_PER_EPOCH,
    LEASES_PER_EPOCH,
    SLICES_PER_EPOCH,
    TRIGGERS_PER_EPOCH,
)
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL


class StoreIdentity(Struct, frozen=True):
    """What a database shows of itself.

    Attributes:
        name: Its cluster, database and timeline.
        next_transaction: The number of its next transaction. It goes back by a restore, and after
            a crash by those that had not been written to the disk.
        last_change: The last row of its change log. Only daemons write these, and each only after
            it has compared the database with the witness.
        synchronous: Whether what is committed is on a standby, too.
    """

    name: str
    next_transaction: int
    last_change: int = 0
    synchronous: bool = False


class StoreState(Struct, frozen=True):
    """The state of a database, as it differs from others and from its own earlier ones.

    Attributes:
        epoch: The number of its epoch.
        known_as: The name of the identity that the epoch is for; None before the first start.
        identity: What it shows of itself.
    """

    epoch: int
    known_as: str | None
    identity: StoreIdentity


def is_promoted_from(name: str, before: str) -> bool:
    """Return whether the name of an identity is that of a standby that was promoted later.

    Args:
        name: Cluster, database and timeline.
        before: The same of the server before.
    """
    database, _, timeline = name.rpartition(".")
    its_database, _, its_timeline = before.rpartition(".")
    return database == its_database and int(timeline, 16) > int(its_timeline, 16)


async def lock_store_state(connection: Connection) -> StoreState:
    """Lock the epoch in the transaction of a connection, and return the state of the database.

    Raises:
        StoreUnavailable: It is a standby.
    """
    identity = await read_identity(connection)
    row = await connection.fetchrow(SQL["lock_epoch"])
    if row is None:
        raise StoreUnavailable("Postgres has no epoch: the table store_epoch is empty")
    return StoreState(row["number"], row["identity"], identity)


async def read_identity(connection: Connection) -> StoreIdentity:
    """Return what the database shows of itself.

    Raises:
        StoreUnavailable: It is a standby.
    """
    row = await connection.fetchrow(SQL["read_store_identity"])
    if row is None or row["identity"] is None:
        raise StoreUnavailable("Postgres is a standby: it cannot be written to")
    return StoreIdentity(*row.values())


async def write_transaction(connection: Connection) -> int:
    """Commit a transaction to the disk; return the number of the next one.

    No crash takes the database back before it: those that are under way, or were committed without
    waiting for the disk, have their numbers for certain only once a later one is written.
    """
    number: int = await connection.fetchval(SQL["write_transaction"])
    return number


async def identify(connection: Connection, identity: str) -> None:
    """Record the identity of a database: at its first start, or as its standby was promoted."""
    await connection.execute(SQL["identify_store"], identity)


async def begin_epoch(connection: Connection, epoch: int, identity: str) -> int:
    """Begin an epoch: void all that was handed out; return how many tasks are handed out again.

    Args:
        connection: Its transaction holds the lock of `lock_store_state`.
        epoch: A number that the database has not had.
        identity: The identity of the database.
    """
    first = epoch * DELIVERIES_PER_EPOCH
    lease = epoch * LEASES_PER_EPOCH
    await connection.execute(SQL["begin_epoch"], epoch, identity)
    await connection.execute(SQL["close_run_slices"])
    await connection.execute(SQL["begin_run_slice"], epoch * SLICES_PER_EPOCH)
    await connection.execute(SQL["mark_run_slice_begun"], epoch * SLICES_PER_EPOCH)
    await connection.execute(SQL["advance_triggers"], epoch * TRIGGERS_PER_EPOCH)
    tasks: int = await connection.fetchval(SQL["refence_tasks"], first, DELIVERIES_PER_EPOCH)
    await connection.execute(SQL["refence_waits"], first, DELIVERIES_PER_EPOCH)
    await connection.execute(SQL["refence_triggers"], first, DELIVERIES_PER_EPOCH, lease)
    await connection.execute(SQL["void_leases"], lease)
    await connection.execute(SQL["forget_members"])
    await connection.execute(SQL["rename_change_log"])
    return tasks

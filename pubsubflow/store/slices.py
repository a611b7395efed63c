"""Slices: the ids given out in one stretch of time, as partitions that are removed as a whole.

A sequence of ids that jumps begins a slice. What is removed is truncated under a lock of its own
partition, which takes the same time for any number of rows; an empty partition is detached later
without holding up anybody.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence

import asyncpg
import structlog
from msgspec import Struct

from pubsubflow.errors import StoreConflict, StoreLocked
from pubsubflow.store.database import Connection, begin_transaction
from pubsubflow.store.named_queries import SQL

log = structlog.get_logger()

SLICE_LEFT_ALONE_SECONDS = 60.0
"""How long a slice of runs is left alone after it has ended, at least."""
SEQUENCES = {"event": "event_id", "run": "run_number"}
"""Series of slices → the sequence of its ids."""
_BITS = 32
_LOCK_WAIT_MILLISECONDS = "200"
_DETACH_WAIT = "SET lock_timeout = '10s'"
_RESET_WAIT = "RESET lock_timeout"


class Removal(Struct, frozen=True):
    """What was removed from a table, or would be.

    Attributes:
        rows: Number of rows; an estimate where a partition went as a whole.
        bytes: Their size, with indexes where a partition went as a whole.
    """

    table: str
    rows: int
    bytes: int


class Slice(Struct, frozen=True):
    """A slice.

    Attributes:
        series: `event` or `run`.
        ids: Number of ids that were given out; None while it is in use.
        age_seconds: Since it began; None until its sequence has jumped.
        ended_seconds: Since the next one began; None while it is in use.
        results_removed: Whether the results of its runs are removed.
    """

    series: str
    number: int
    ids: int | None
    age_seconds: float | None
    ended_seconds: float | None
    results_removed: bool

    @property
    def first(self) -> int:
        """The lowest id."""
        return self.number << _BITS

    @property
    def end(self) -> int:
        """The lowest id of the next slice."""
        return (self.number + 1) << _BITS


async def list_slices(connection: Connection, series: str) -> list[Slice]:
    """Return the slices of a series, oldest first."""
    rows = await connection.fetch(SQL["list_slices"], series)
    return [
        Slice(
            series,
            row["number"],
            row["ids"],
            row["age_seconds"],
            row["ended_seconds"],
            row["results_removed"],
        )
        for row in rows
    ]


async def begin_slice(
    connection: Connection, series: str, due: Callable[[Slice, int], bool]
) -> None:
    """Begin the next slice of a series if that is due.

    Args:
        connection: Outside of a transaction.
        series: `event` or `run`.
        due: Returns whether a slice, of which so many ids were given out, is to end.
    """
    slices = await list_slices(connection, series)
    last_id = await connection.fetchval(SQL["read_last_slice_id"], SEQUENCES[series])
    newest = slices[-1]
    if newest.age_seconds is None:
        number = newest.number  # a daemon ended before the sequence jumped, or that was recorded
        if last_id > newest.first:
            last_id = slices[-2].first  # unknown by now: rather too few than too many
    elif due(newest, max(last_id - newest.first, 0)):
        number = await connection.fetchval(SQL["open_slice"], series)
    else:
        return
    # Not in the transaction of the partitions: the jump is seen at once, they are not.
    await connection.execute(SQL["begin_slice"], SEQUENCES[series], series, number, last_id)
    await connection.execute(SQL["analyze_series"], series)
    log.info("retention.slice_begun", series=series, number=number)


async def trim_slice(
    connection: Connection,
    found: Slice,
    tables: Sequence[str],
    list_kept: Callable[[], Awaitable[Collection[int]]],
) -> list[Removal] | None:
    """Remove the rows of a slice from tables, except for what is kept.

    Args:
        connection: Outside of a transaction.
        found: The slice; nothing is added to it.
        tables: Those of its series that are concerned.
        list_kept: Lists the events, or runs, whose rows are kept.

    Returns:
        What was removed; None if the slice is in use.
    """
    before = await read_partitions(connection, found, tables)
    used = [name for name in tables if name in before]
    if not used:
        return []
    try:
        async with begin_transaction(connection):
            await connection.fetchval(SQL["limit_lock_waits"], _LOCK_WAIT_MILLISECONDS)
            # First for the locks of what is read, which come before the slice's in the order of
            # locks; then under its lock, since nobody finds a new reason to keep a row any more.
            # Twice, as a reason that changes in the middle of a listing may be missed by it.
            kept_rows = {*await list_kept()}
            await connection.execute(SQL["lock_slice"], found.number, used)
            kept_rows.update(await list_kept())
            kept_rows.update(await list_kept())
            kept = sorted(kept_rows)
            await connection.execute(SQL["trim_slice"], found.number, used, kept)
    except (StoreLocked, StoreConflict):
        log.info("retention.slice_in_use", series=found.series, number=found.number)
        return None
    after = await read_partitions(connection, found, used)
    return [
        Removal(name, max(rows - len(kept), 0), max(size - after.get(name, (0, 0))[1], 0))
        for name, (rows, size) in before.items()
    ]


async def read_partitions(
    connection: Connection, found: Slice, tables: Sequence[str], *, exact: bool = False
) -> dict[str, tuple[int, int]]:
    """Return table → rows and bytes of its partition, without those that are empty.

    Args:
        connection: A connection.
        found: The slice.
        tables: Those of its series that are concerned.
        exact: Whether to count the rows; they are estimated otherwise.
    """
    rows = await connection.fetch(SQL["read_partitions"], list(tables), found.number)
    sizes = {row["parent"]: (row["rows"], row["bytes"]) for row in rows if row["used"]}
    if exact:
        for name, (_, size) in sizes.items():
            statement = await connection.fetchval(SQL["write_count"], f"{name}_s{found.number}")
            sizes[name] = (await connection.fetchval(statement), size)
    return sizes


async def forget_slice(connection: Connection, found: Slice) -> None:
    """Remove a slice whose partitions are empty."""
    # First its row: what comes late for the slice is dropped from then on.
    await connection.execute(SQL["delete_slice"], found.series, found.number)
    log.info("retention.slice_removed", series=found.series, number=found.number)


async def drop_leftovers(connection: Connection, series: str) -> None:
    """Detach and drop the partitions of removed slices, also those of a pass that died."""
    busy: set[str] = set()
    for row in await connection.fetch(SQL["list_leftovers"], series):
        if row["parent"] in busy:
            continue
        statements = await connection.fetchrow(
            SQL["write_detachment"], row["parent"], row["part"], row["pending"]
        )
        if statements is None:
            continue
        try:
            await connection.execute(_DETACH_WAIT)
            if statements["detach"] is not None:
                await connection.execute(statements["detach"])
            await connection.execute(statements["drop"])
        except asyncpg.LockNotAvailableError:
            # A transaction that has lasted for long, as of pg_dump: the next pass goes on here.
            log.info("retention.partition_in_use", partition=row["part"])
            busy.add(row["parent"])
        finally:
            await connection.execute(_RESET_WAIT)

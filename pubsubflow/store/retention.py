"""Queries of retention: the events and runs that are kept, and removal row by row."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.model.spec import RetentionSpec
from pubsubflow.model.wire.outputs import decode_outputs
from pubsubflow.model.wire.stored_results import decode_stored
from pubsubflow.store.bundles import decode_manifest
from pubsubflow.store.codecs import REMOVED_RESULT
from pubsubflow.store.database import Connection, begin_transaction
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.slices import Removal, Slice
from pubsubflow.store.specs import SpecReader

FOR_EVER_SECONDS = 1e10
MOST_KEPT = 20_000
"""A slice of which more is to be kept stays as it is: what is kept is copied under a lock."""
ROWS_AT_ONCE = 1000
_ARCHIVES = {
    "event": "archive_event",
    "event_outcome": "archive_event_outcome",
    "log": "archive_log",
    "log_object": "archive_log_object",
    "attempt": "archive_attempt",
    "journal_entry": "archive_journal_entry",
    "task": "archive_task",
    "run_event": "archive_run_event",
}


# What a number of ours stands for, in its place.
_SPELT_OUT = {("event", "dataset"), ("event_outcome", "dag"), ("run", "dag")}


class Column(NamedTuple):
    """A column of archived rows.

    Attributes:
        type: As Postgres names it, such as `timestamp with time zone`.
    """

    name: str
    type: str


class _NamedEvents(Struct, frozen=True):
    """The events that a dead letter names, in either of its forms."""

    events: tuple[UUID, ...] = ()
    event_id: UUID | None = None


class KeptFor(Struct, frozen=True):
    """How long something of runs is kept after these have ended.

    Attributes:
        seconds: By default.
        own: DAG → seconds, for those with a retention of their own.
    """

    seconds: float
    own: Mapping[int, float]

    @property
    def arguments(self) -> tuple[float, list[int], list[float]]:
        """The arguments of queries."""
        return self.seconds, list(self.own), list(self.own.values())


async def try_lock(connection: Connection) -> bool:
    """Lock retention against other daemons, as long as the connection lasts; return whether."""
    locked: bool = await connection.fetchval(SQL["try_lock_retention"])
    return locked


async def read_clock(connection: Connection) -> float:
    """Return the time of the database, in seconds since 1970."""
    seconds: float = await connection.fetchval(SQL["read_store_clock"])
    return seconds


async def unlock(connection: Connection) -> None:
    """Unlock retention."""
    await connection.fetchval(SQL["unlock_retention"])


async def list_own_retentions(
    connection: Connection, specs: SpecReader
) -> dict[int, RetentionSpec | None]:
    """Return DAG → its retention, None for the usual one."""
    rows = await connection.fetch(SQL["list_schedule_versions"])
    known = await specs.load(connection, (row["version"] for row in rows))
    return {row["dag"]: known[row["version"]].retention for row in rows if row["version"] in known}


async def list_kept_events(connection: Connection, found: Slice) -> set[int]:
    """Return the events of a slice that something waits for.

    With more than `MOST_KEPT` of these the list is not complete.
    """
    states = await connection.fetch(SQL["list_collecting_states"])
    collecting = {decode_condition_state(row["state"]).collecting_run for row in states} - {0}
    letters = await connection.fetch(SQL["list_open_letters"])
    named = {event for row in letters for event in _named_events(row["payload"])}
    rows = await connection.fetch(
        SQL["list_kept_events"],
        found.first,
        found.end,
        sorted(collecting),
        sorted(named),
        MOST_KEPT + 1,
    )
    return {row[0] for row in rows}


def _named_events(payload: bytes) -> Iterable[UUID]:
    try:
        found = msgspec.json.decode(payload, type=_NamedEvents)
    except msgspec.DecodeError:  # of an older version, or edited
        return ()
    return found.events if found.event_id is None else (*found.events, found.event_id)


async def list_kept_runs(connection: Connection, found: Slice, kept_for: KeptFor) -> set[int]:
    """Return the runs of a slice whose rows are kept, `MOST_KEPT` and one at most."""
    rows = await connection.fetch(
        SQL["list_kept_runs"], found.first, found.end, *kept_for.arguments, MOST_KEPT + 1
    )
    return {row["id"] for row in rows}


async def list_runs(connection: Connection, found: Slice) -> set[int]:
    """Return the runs of a slice that exist, `MOST_KEPT` and one at most."""
    query = SQL["list_runs_between"]
    rows = await connection.fetch(query, found.first, found.end, MOST_KEPT + 1)
    return {row["id"] for row in rows}


async def count_runs(connection: Connection, found: Slice) -> int:
    """Return the number of the runs of a slice."""
    count: int = await connection.fetchval(SQL["count_runs"], found.first, found.end)
    return count


async def pages_of_due_runs(
    connection: Connection, found: Slice, kept_for: KeptFor
) -> AsyncIterator[list[int]]:
    """Yield the runs of a slice that are not kept, a thousand at a time."""
    after = found.first - 1
    while True:
        rows = await connection.fetch(
            SQL["list_due_runs"], after, found.end, *kept_for.arguments, ROWS_AT_ONCE
        )
        if not rows:
            return
        after = rows[-1]["id"]
        yield [row["id"] for row in rows]


async def list_due_runs_of_dag(
    connection: Connection, dag: int, seconds: float, count: int
) -> list[int]:
    """Return runs of a DAG that are not kept, a thousand at most.

    Args:
        connection: A connection.
        dag: The DAG.
        seconds: How long a run is kept after its end.
        count: Number of runs that are kept; 0 for any number.
    """
    query = SQL["list_due_runs_of_dag"]
    rows = await connection.fetch(query, dag, seconds, count, ROWS_AT_ONCE)
    return [row["id"] for row in rows]


async def delete_runs(connection: Connection, runs: Sequence[int], *, with_rows: bool) -> int:
    """Delete finished runs and return how many.

    Args:
        connection: Outside of a transaction.
        runs: The runs; those that are about to start again are left out.
        with_rows: Whether to delete their tasks, logs and so on as well, row by row.
    """
    async with begin_transaction(connection):
        rows = await connection.fetch(SQL["delete_runs"], runs)
        if rows and with_rows:
            await connection.execute(SQL["delete_rows_of_runs"], [row["id"] for row in rows])
    return len(rows)


async def remove_results(connection: Connection, runs: Sequence[int]) -> Removal:
    """Remove the results of runs."""
    row = await connection.fetchrow(SQL["remove_results"], runs, REMOVED_RESULT)
    return Removal("result", *(row or (0, 0)))


async def read_database_id(connection: Connection) -> UUID:
    """Return the id of this database, which restores keep."""
    found: UUID = await connection.fetchval(SQL["read_database_id"])
    return found


async def read_kept_results(
    connection: Connection, runs: Sequence[int]
) -> dict[int, set[str] | None]:
    """Return run → names of its files in the result store that are kept; None for all.

    Runs that do not exist are left out.
    """
    kept: dict[int, set[str] | None] = {}
    for row in await connection.fetch(SQL["list_stored_results"], runs):
        pushed = decode_outputs(row["outputs"]).pushed.values()
        found = [decode_stored(bytes(data)) for data in (row["result"] or b"", *pushed)]
        names = kept.setdefault(row["run"], None if row["unfinished"] else set())
        if names is not None:
            names.update(stored.name for stored in found if stored is not None)
    return kept


async def mark_results_removed(connection: Connection, found: Slice) -> None:
    """Record that the results of a slice are removed."""
    await connection.execute(SQL["mark_results_removed"], found.number)


async def remove_keys(connection: Connection, seconds: float, *, dry_run: bool) -> Removal:
    """Remove idempotency keys of so many seconds ago, or count them."""
    queries = ("count_idempotency_keys", "delete_idempotency_keys")
    return await _remove_in_turns(connection, "idempotency_key", queries, seconds, dry_run=dry_run)


async def remove_check_results(
    connection: Connection, seconds: float, *, dry_run: bool
) -> list[Removal]:
    """Remove results of checks and discarded events of so many seconds ago, or count them."""
    removals = []
    for table, queries in (
        ("check_result", ("count_check_results", "delete_check_results")),
        ("held_event", ("count_discarded_events", "delete_discarded_events")),
    ):
        removal = _remove_in_turns(connection, table, queries, seconds, dry_run=dry_run)
        removals.append(await removal)
    return removals


async def remove_condition_states(
    connection: Connection, seconds: float, *, dry_run: bool
) -> Removal:
    """Remove the states of partitions that nothing came for in so many seconds, or count them."""
    queries = ("count_condition_states", "delete_condition_states")
    return await _remove_in_turns(connection, "condition_state", queries, seconds, dry_run=dry_run)


async def remove_backfills(connection: Connection, seconds: float, *, dry_run: bool) -> Removal:
    """Remove backfills that ended so many seconds ago, or count them."""
    queries = ("count_old_backfills", "delete_backfills")
    return await _remove_in_turns(connection, "backfill", queries, seconds, dry_run=dry_run)


async def _remove_in_turns(
    connection: Connection,
    table: str,
    queries: tuple[str, str],
    seconds: float,
    *,
    dry_run: bool,
) -> Removal:
    """Remove a thousand rows a transaction, or count all."""
    count, delete = queries
    if dry_run:
        row = await connection.fetchrow(SQL[count], seconds)
        return Removal(table, *(row or (0, 0)))
    total, size = 0, 0
    while True:
        row = await connection.fetchrow(SQL[delete], seconds, ROWS_AT_ONCE)
        if row is None or not row["rows"]:
            return Removal(table, total, size)
        total, size = total + row["rows"], size + row["bytes"]


async def remove_letters(
    connection: Connection, seconds: float, count: int, *, dry_run: bool
) -> Removal:
    """Remove dead letters, or count the first of them.

    Args:
        connection: A connection.
        seconds: How long a letter is kept after it was resent.
        count: Number of letters that are kept; 0 for any number.
        dry_run: Whether to count only.
    """
    return await _remove(
        connection, ("list_due_letters", "delete_letters"), (seconds, count), dry_run=dry_run
    )


async def remove_versions(
    connection: Connection, seconds: float, count: int, *, dry_run: bool
) -> Removal:
    """Remove versions that are not in force and that no run has, or count the first of them.

    Args:
        connection: Outside of a transaction.
        seconds: How long a version is kept.
        count: Number of versions that are kept of each DAG, however old.
        dry_run: Whether to count only.
    """
    async with begin_transaction(connection):
        # A loader that puts an old version in force again must not lose it.
        await connection.execute(SQL["lock_catalog"])
        return await _remove(
            connection, ("list_due_versions", "delete_versions"), (seconds, count), dry_run=dry_run
        )


async def remove_bundles(connection: Connection, seconds: float) -> list[Removal]:
    """Remove bundles that nothing is pinned to, and files that no bundle has.

    This reads the rows of all runs once if a bundle may go.

    Args:
        connection: Outside of a transaction.
        seconds: How long a bundle is kept after it was written.
    """
    rows = await connection.fetch(SQL["list_bundles_without_version"], seconds)
    if not rows:
        return []
    async with begin_transaction(connection):
        if not await connection.fetchval(SQL["try_lock_source_files"]):
            return []
        # No DAG is pinned to another bundle meanwhile, so no run either.
        await connection.execute(SQL["lock_catalog"])
        rows = await connection.fetch(SQL["list_bundles_without_version"], seconds)
        pinned = {row["hash"] for row in await connection.fetch(SQL["list_bundles_of_runs"])}
        due = [row["hash"] for row in rows if row["hash"] not in pinned]
        bundles = await connection.fetch(SQL["delete_bundles"], due)
        used = {
            file.hash
            for row in await connection.fetch(SQL["list_manifests"])
            for file in decode_manifest(row["manifest"]).files.values()
        }
        known = {row["hash"] for row in await connection.fetch(SQL["list_source_files"])}
        files = await connection.fetch(SQL["delete_source_files"], sorted(known - used))
    return [
        Removal(table, len(found), sum(row["bytes"] for row in found))
        for table, found in (("bundle", bundles), ("source_file", files))
    ]


async def _remove(
    connection: Connection,
    queries: tuple[str, str],
    arguments: tuple[float, int],
    *,
    dry_run: bool,
) -> Removal:
    table = "dead_letter" if "letters" in queries[0] else "dag_version"
    rows = await connection.fetch(SQL[queries[0]], *arguments, ROWS_AT_ONCE)
    if rows and not dry_run:
        await connection.execute(SQL[queries[1]], [row["id"] for row in rows])
    return Removal(table, len(rows), sum(row["bytes"] for row in rows))


async def read_columns(connection: Connection, table: str) -> list[Column]:
    """Return the columns of the rows that are archived of a table."""
    rows = await connection.fetch(SQL["list_columns"], table)
    return [
        Column(row["name"], "text" if (table, row["name"]) in _SPELT_OUT else row["type"])
        for row in rows
    ]


async def rows_to_archive(
    connection: Connection, table: str, found: Slice, kept: Collection[int]
) -> AsyncIterator[list[str]]:
    """Yield the rows of a slice of a table as JSON, except for those that are kept, by pages."""
    async with begin_transaction(connection):
        # An archive may be slow, and nobody waits for this transaction.
        await connection.execute(SQL["allow_pauses"])
        cursor = await connection.cursor(
            SQL[_ARCHIVES[table]], found.first, found.end, sorted(kept)
        )
        while rows := await cursor.fetch(ROWS_AT_ONCE):
            yield [row["row"] for row in rows]


async def read_runs_to_archive(connection: Connection, runs: Sequence[int]) -> list[str]:
    """Return runs as JSON."""
    return [row["row"] for row in await connection.fetch(SQL["archive_run"], runs)]

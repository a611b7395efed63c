"""Queries of the log store: output that moves there, and the index of what is in it."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, begin_transaction
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

ATTEMPTS_AT_ONCE = 200
FILES_AT_ONCE = 1000
_END = "\n"
START = (-1, 0, 0, 0, 0)

AttemptKey = tuple[int, int, int, int, int]
"""Run number, node, map index, attempt, delivery."""


class LogFile(NamedTuple):
    """A file of the log store: its name below the store's URL, and its size."""

    name: str
    bytes: int


class StoredOutput(Struct, frozen=True):
    """Output of an ended attempt that is in Postgres.

    Attributes:
        folder: The folder in the log store; None if the run is removed.
        chunks: Number of its chunks; `last_sequence` is the last one.
    """

    key: AttemptKey
    folder: str | None
    chunks: int
    last_sequence: int


async def try_lock(connection: Connection) -> bool:
    """Lock the mover against other daemons, as long as the connection lasts; return whether."""
    locked: bool = await connection.fetchval(SQL["try_lock_log_store"])
    return locked


async def unlock(connection: Connection) -> None:
    """Unlock the mover."""
    await connection.fetchval(SQL["unlock_log_store"])


async def list_stored_output(
    connection: Connection, specs: SpecReader, after: AttemptKey
) -> list[StoredOutput]:
    """Return ended attempts that have output in Postgres, in order, some at a time.

    Args:
        connection: A connection.
        specs: Know the names of tasks.
        after: The last one of the page before, or `START`.
    """
    rows = await connection.fetch(SQL["list_stored_output"], *after, ATTEMPTS_AT_ONCE)
    versions = {row["version"] for row in rows if row["version"] is not None}
    known = await specs.load(connection, versions)
    found = []
    for row in rows:
        spec = known.get(row["version"])
        folder = None
        if spec is not None:
            task = spec.tasks[row["node"]].task_id
            folder = _folder(row["dag_id"], row["run_id"], task, row["map_index"])
        key = (row["run"], row["node"], row["map_index"], row["attempt"], row["delivery"])
        found.append(StoredOutput(key, folder, row["chunks"], row["last_sequence"]))
    return found


def _folder(dag_id: str, run_id: UUID, task: str, map_index: int) -> str:
    end = "" if map_index == NOT_MAPPED else f".{map_index}"
    return f"{quote(dag_id, safe='')}/{run_id}/{quote(task, safe='')}{end}"


async def read_output(connection: Connection, key: AttemptKey) -> list[tuple[int, str]]:
    """Return the chunks of an attempt's output in Postgres: sequence and whole lines."""
    rows = await connection.fetch(SQL["read_stored_output"], *key)
    return [(row["sequence"], f"{row['text'].removesuffix(_END)}{_END}") for row in rows]


async def record_move(
    connection: Connection, key: AttemptKey, chunks: Sequence[tuple[int, int]], file: LogFile
) -> None:
    """Record that chunks are in a file of the log store, and delete them from Postgres.

    Args:
        connection: Outside of a transaction.
        key: The attempt.
        chunks: Sequence and number of lines of each.
        file: The file, which is written.
    """
    sequences, lines = [each[0] for each in chunks], [each[1] for each in chunks]
    async with begin_transaction(connection):
        await connection.execute(
            SQL["move_output"], *key, sequences[-1], sequences, lines, file.bytes, file.name
        )


async def pages_of_files(
    connection: Connection, first: int, end: int, kept: Collection[int]
) -> AsyncIterator[list[LogFile]]:
    """Yield the files of the runs in [first, end), a thousand at a time, without those `kept`."""
    run, name = first, ""
    while True:
        rows = await connection.fetch(
            SQL["list_log_objects"], run, end, sorted(kept), name, FILES_AT_ONCE
        )
        if not rows:
            return
        run, name = rows[-1]["run"], rows[-1]["name"]
        yield [LogFile(row["name"], row["bytes"]) for row in rows]


async def list_files_of_runs(connection: Connection, runs: Sequence[int]) -> list[LogFile]:
    """Return the files of runs."""
    rows = await connection.fetch(SQL["list_log_objects_of_runs"], runs)
    return [LogFile(row["name"], row["bytes"]) for row in rows]

"""Output of task instances, from Postgres and from the log store, as one sequence of chunks."""

import time
import zlib
from collections.abc import Sequence

import anyio.to_thread
import asyncpg
import msgspec
from msgspec import Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.object_store import LogStore, ObjectStoreUnavailable
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_FILES_AT_ONCE = 4
_GZIP = 16 + zlib.MAX_WBITS


class OutputPosition(Struct, frozen=True, order=True):
    """A position in the output of a task instance: after this chunk."""

    attempt: int
    delivery: int = 0
    sequence: int = -1


class LogChunk(Struct, frozen=True):
    """A chunk of output: whole lines of JSON, see `pubsubflow.model.wire.messages.LogMessage`."""

    position: OutputPosition
    text: str


class ReadOutput:
    """Reads output.

    Args:
        database: Postgres.
        store: The log store, if there is one.
    """

    def __init__(self, database: Database, store: LogStore | None) -> None:
        self._database = database
        self._store = store

    async def read(self, key: TaskKey, after: OutputPosition, *, limit: int) -> list[LogChunk]:
        """Return chunks after a position, in order.

        Args:
            key: The task instance.
            after: The position.
            limit: Number of chunks at most from Postgres; those of a file come together.

        Raises:
            ObjectStoreUnavailable: The log store does not answer, or there is none.
        """
        position = (after.attempt, after.delivery, after.sequence)
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_log"], *key, *position, limit, _FILES_AT_ONCE)
        files = [row for row in rows if row["sequences"] is not None]
        chunks = [LogChunk(_position(row), row["text"]) for row in rows if row["sequences"] is None]
        if not files:
            return chunks
        # What lies behind the last of either may be followed by more of the other: the next page
        # begins there.
        ends = [chunks[-1].position] if len(chunks) == limit else []
        ends += [_position(files[-1])] if len(files) == _FILES_AT_ONCE else []
        end = min(ends, default=None)
        for row in files:
            chunks += await self._chunks(row)
        found = [
            chunk
            for chunk in chunks
            if chunk.position > after and (end is None or chunk.position <= end)
        ]
        return sorted(found, key=lambda chunk: chunk.position)

    async def count(self, key: TaskKey, after: OutputPosition) -> list[tuple[OutputPosition, int]]:
        """Return how many lines each chunk of an attempt has after a position, in order.

        Args:
            key: The task instance.
            after: The position, and with it the attempt.
        """
        position = (after.attempt, after.delivery, after.sequence)
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["count_log_lines"], *key, *position)
        found = [
            (OutputPosition(after.attempt, row["delivery"], sequence), lines)
            for row in rows
            for sequence, lines in zip(row["sequences"], row["lines"], strict=True)
        ]
        # A file also has those of its chunks that come before.
        return sorted(each for each in found if each[0] > after)

    async def _chunks(self, row: asyncpg.Record) -> list[LogChunk]:
        """Return the chunks of a file; one that says so if it is gone."""
        if self._store is None:
            raise ObjectStoreUnavailable(
                "the output is in a log store, and this daemon has none: set [logs] store"
            )
        try:
            data = await self._store.read(row["text"])
        except NotFound:
            # Retention has removed it, and its row is about to go.
            line = {"t": time.time(), "s": "error", "m": "the output of this attempt was pruned"}
            return [LogChunk(_position(row), f"{msgspec.json.encode(line).decode()}\n")]
        text = await anyio.to_thread.run_sync(zlib.decompress, data, _GZIP)
        parts = _split(text.decode(), row["lines"])
        return [
            LogChunk(OutputPosition(row["attempt"], row["delivery"], sequence), part)
            for sequence, part in zip(row["sequences"], parts, strict=True)
        ]


def _position(row: asyncpg.Record) -> OutputPosition:
    return OutputPosition(row["attempt"], row["delivery"], row["sequence"])


def _split(text: str, counts: Sequence[int]) -> list[str]:
    """Return as many lines for each count."""
    lines = text.splitlines(keepends=True)
    parts, start = [], 0
    for count in counts:
        parts.append("".join(lines[start : start + count]))
        start += count
    return parts

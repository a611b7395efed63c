"""Growth: WAL, tables and streams that events leave behind, scaled to a million.

The floor is what the bare rows of an event take: the table and indexes of `benchmarks.floor`, in
transactions as large.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.figures import figure
from benchmarks.floor import SCHEMA
from benchmarks.stack import Stack

EVENTS = int(os.environ.get("BENCH_GROWTH_EVENTS", "20000"))
MILLION = 1_000_000
BATCH = 100
_KINDS = {
    "events without a subscriber": "bench://unsubscribed",
    "events with a run of ten tasks": "bench://load/async",
}
# Each of the second kind is ten tasks: fewer of them say as much.
_SHARES = {"bench://unsubscribed": 1, "bench://load/async": 20}
_TARGETS = {
    "bench://unsubscribed": (1_500, 700, 600),
    "bench://load/async": (40_000, 12_000, 2_000),
}
_ROWS = """
INSERT INTO event SELECT nextval('event_id'), gen_random_uuid(), 1, '{}', 'api', NULL, now()
FROM generate_series(1, $1)
"""


class Sizes:
    """WAL that was ever written, and what the database and the streams take, in bytes."""

    def __init__(self, wal: float, database: float, streams: float) -> None:
        self.values = wal, database, streams

    def since(self, before: "Sizes", events: int) -> list[float]:
        """Return the growth for a million events, in megabytes."""
        pairs = zip(self.values, before.values, strict=True)
        return [round((now - then) / events * MILLION / 2**20, 1) for now, then in pairs]


async def _sizes(dsn: str, database: str | None, streams: Path) -> Sizes:
    connection = await asyncpg.connect(dsn, database=database)
    try:
        await connection.execute("CHECKPOINT")
        wal, size = await connection.fetchrow(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float,"
            " pg_database_size(current_database())::float"
        )
    finally:
        await connection.close()
    return Sizes(wal, size, _taken(streams))


def _taken(folder: Path) -> int:
    """Return the bytes that the files of a folder take on the disk."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _measured(stack: Stack) -> Sizes:
    return asyncio.run(_sizes(stack.dsn, None, stack.home / "nats"))


async def _until_done(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        query = "SELECT EXISTS (SELECT FROM run_live) OR EXISTS (SELECT FROM run_queue)"
        while await connection.fetchval(query):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def _bare(dsn: str, streams: Path) -> float:
    """Return the megabytes of WAL of a million bare rows."""
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE DATABASE floor")
    connection = await asyncpg.connect(dsn, database="floor")
    try:
        await connection.execute(SCHEMA)
        before = await _sizes(dsn, "floor", streams)
        for _ in range(EVENTS // BATCH):
            await connection.execute(_ROWS, BATCH)
        wal, _, _ = (await _sizes(dsn, "floor", streams)).since(before, EVENTS)
    finally:
        await connection.close()
        await admin.execute("DROP DATABASE floor")
        await admin.close()
    return wal


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        for text, uri in _KINDS.items():
            stack.emit(uri, BATCH)
            asyncio.run(_until_done(stack.dsn))
            before, events = _measured(stack), max(BATCH, EVENTS // _SHARES[uri])
            for _ in range(events // BATCH):
                stack.emit(uri, BATCH)
            asyncio.run(_until_done(stack.dsn))
            grown = _measured(stack).since(before, events)
            names = ("WAL", "tables and indexes", "streams of NATS")
            for name, value, target in zip(names, grown, _TARGETS[uri], strict=True):
                label = f"{name} for a million {text}"
                found.append(figure(label, value, "MB", target=target, measured_events=events))
        floor = asyncio.run(_bare(stack.dsn, stack.home / "nats"))
    for each in found:
        if each["name"].startswith("WAL"):
            each["floor"] = floor
    return found

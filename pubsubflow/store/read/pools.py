"""What people ask about pools, and what tasks wait for that are ready."""

from collections.abc import Sequence

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page, PoolView
from pubsubflow.model.revisions import pool_revision
from pubsubflow.model.runs.concurrency import DAG, KEY, POOL, Limit, Line, Room
from pubsubflow.model.runs.states import TaskState
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_NAMES = {POOL: "pool", DAG: "DAG", KEY: "concurrency key"}


class ReadPools:
    """Queries about pools."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, *, limit: int, after: str | None = None) -> Page[PoolView]:
        """Return pools by name, also those that tasks name and nobody has set.

        Args:
            limit: Number of pools at most.
            after: The `next` of the page before.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["page_pools"], after or "", limit, None)
        items = [_pool(row) for row in rows]
        return Page(items, items[-1].name if len(items) == limit else None)

    async def get(self, name: str) -> PoolView:
        """Return a pool.

        Raises:
            NotFound: Nobody has set it, and no task needs a slot of it.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["page_pools"], "", 1, name)
        if row is None:
            raise NotFound("pool", name)
        return _pool(row)


def _pool(row: asyncpg.Record) -> PoolView:
    return PoolView(**dict(row), revision=pool_revision(row["changed_at"]))


async def why_ready(
    connection: Connection, run: int, rows: Sequence[asyncpg.Record]
) -> dict[tuple[int, int], str]:
    """Return what has no free slot for the tasks among rows of a run that are ready.

    Args:
        connection: To Postgres.
        run: Number of the run.
        rows: With node, map index and state, in order.
    """
    ready = [(row["node"], row["map_index"]) for row in rows if row["state"] == TaskState.READY]
    if not ready:
        return {}
    waiting = await connection.fetch(SQL["read_task_lines"], run, *ready[0], *ready[-1])
    numbers = sorted({row["line"] for row in waiting})
    lines = {
        row["id"]: Line(
            row["id"],
            tuple(map(Limit, row["limits"], row["most"])),
            row["used"],
            row["waiting"],
        )
        for row in await connection.fetch(SQL["read_lines"], numbers, [])
    }
    pools = {limit.name.removeprefix(POOL) for line in lines.values() for limit in line.limits}
    slots = await connection.fetch(SQL["read_pools"], sorted(pools))
    room = Room(lines.values(), {row["name"]: row["slots"] for row in slots})
    reasons = {number: _reason(room, lines[number]) for number in numbers if number in lines}
    return {
        (row["node"], row["map_index"]): reasons[row["line"]]
        for row in waiting
        if row["line"] in reasons
    }


def _reason(room: Room, line: Line) -> str:
    full = []
    for name, used, most in room.full(line):
        kind, _, rest = name.partition(":")
        full.append(f"{_NAMES[kind + ':']} {rest}: {used} of {most} slots used")
    return ", ".join(full) or "its turn"

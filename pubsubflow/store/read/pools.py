"""Pools and wait queues, read for the API."""

from collections.abc import Sequence

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page, PoolView
from pubsubflow.model.revisions import pool_revision
from pubsubflow.model.runs.concurrency import DAG, KEY, POOL, Capacity, Limit, WaitQueue
from pubsubflow.model.runs.states import TaskState
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_NAMES = {POOL: "pool", DAG: "DAG", KEY: "concurrency key"}


class ReadPools:
    """Queries about pools."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, *, limit: int, after: str | None = None) -> Page[PoolView]:
        """Return pools by name, including those that tasks name and that have no size.

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
            NotFound: It has no size, and no task needs a slot of it.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["page_pools"], "", 1, name)
        if row is None:
            raise NotFound("pool", name)
        return _pool(row)


def _pool(row: asyncpg.Record) -> PoolView:
    return PoolView(**dict(row), revision=pool_revision(row["changed_at"]))


async def unavailable_limits(
    connection: Connection, run: int, rows: Sequence[asyncpg.Record]
) -> dict[tuple[int, int], str]:
    """Return the limits without a free slot, for the ready tasks among rows of a run.

    Args:
        connection: To Postgres.
        run: Id of the run.
        rows: With node, map index and state, in order.
    """
    ready = [(row["node"], row["map_index"]) for row in rows if row["state"] == TaskState.READY]
    if not ready:
        return {}
    # A range of (node, map index) in place of a list: the rows come in this order.
    waiting = await connection.fetch(SQL["read_task_wait_queues"], run, *ready[0], *ready[-1])
    waited_for = sorted({row["wait_queue"] for row in waiting})
    queues = {
        row["id"]: WaitQueue(
            row["id"],
            tuple(map(Limit, row["limits"], row["capacities"])),
            row["used"],
            row["waiting"],
        )
        for row in await connection.fetch(SQL["read_wait_queues"], waited_for, [])
    }
    pools = {limit.name.removeprefix(POOL) for queue in queues.values() for limit in queue.limits}
    slots = await connection.fetch(SQL["read_pools"], sorted(pools))
    capacity = Capacity(queues.values(), {row["name"]: row["slots"] for row in slots})
    reasons = {each: _reason(capacity, queues[each]) for each in waited_for if each in queues}
    return {
        (row["node"], row["map_index"]): reasons[row["wait_queue"]]
        for row in waiting
        if row["wait_queue"] in reasons
    }


def _reason(capacity: Capacity, queue: WaitQueue) -> str:
    full = []
    for name, used, most in capacity.full(queue):
        kind, _, rest = name.partition(":")
        full.append(f"{_NAMES[kind + ':']} {rest}: {used} of {most} slots used")
    return ", ".join(full) or "its turn"

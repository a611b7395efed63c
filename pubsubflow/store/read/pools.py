"""Pools and wait queues, read for the API."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import asyncpg
from msgspec.structs import replace

from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page, PoolView, RateLimitView
from pubsubflow.model.limits.rates import Bucket, RateLimitSpec
from pubsubflow.model.limits.run_limits import RUNS
from pubsubflow.model.revisions import pool_revision
from pubsubflow.model.runs.concurrency import (
    DAG,
    KEY,
    POOL,
    RATE,
    TAG,
    Capacity,
    FullLimit,
    Limit,
    WaitQueue,
)
from pubsubflow.model.runs.states import TaskState
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.runs.run_limits import read_use
from pubsubflow.store.specs import SpecReader

_Buckets = Mapping[str, tuple[Bucket, datetime]]
"""Rate limit → its bucket, and the time."""
_NAMES = {POOL: "pool", DAG: "DAG", KEY: "concurrency key", TAG: "tag"}


class ReadPools:
    """Queries about pools."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(self, *, limit: int, after: str | None = None) -> Page[PoolView]:
        """Return pools by name, including those that tasks name and that have no size.

        Args:
            limit: Number of pools at most.
            after: The `next` of the page before.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(SQL["page_pools"], after or "", limit, None)
            items = await self._pools(connection, rows)
        return Page(items, items[-1].name if len(items) == limit else None)

    async def get(self, name: str) -> PoolView:
        """Return a pool.

        Raises:
            NotFound: It has no size, and no task needs a slot of it.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(SQL["page_pools"], "", 1, name)
            if not rows:
                raise NotFound("pool", name)
            return (await self._pools(connection, rows))[0]

    async def _pools(
        self, connection: Connection, rows: Sequence[asyncpg.Record]
    ) -> list[PoolView]:
        found = [PoolView(**dict(row), revision=pool_revision(row["changed_at"])) for row in rows]
        if not any(each.name.startswith(RUNS) for each in found):
            return found
        use = await read_use(connection, self._specs)
        return [
            replace(each, used=use[each.name].active, waiting=use[each.name].waiting)
            if each.name in use
            else each
            for each in found
        ]

    async def rate_limits(self, *, limit: int, after: str | None = None) -> Page[RateLimitView]:
        """Return rate limits by name.

        Args:
            limit: Number of rate limits at most.
            after: The `next` of the page before.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["page_rate_limits"], after or "", limit)
        items = [_rate_limit(row) for row in rows]
        return Page(items, items[-1].name if len(items) == limit else None)


def _bucket(row: asyncpg.Record) -> Bucket:
    spec = RateLimitSpec(row["name"], row["starts"], row["per_seconds"], row["burst"])
    return Bucket(spec, row["full_at"], row["wake_at"])


def _rate_limit(row: asyncpg.Record) -> RateLimitView:
    bucket, now = _bucket(row), row["now"]
    available = bucket.available(now)
    return RateLimitView(
        name=row["name"],
        starts=row["starts"],
        per_seconds=row["per_seconds"],
        burst=row["burst"],
        rate=bucket.spec.describe(),
        available=available,
        waiting=row["waiting"],
        next_at=None if available else bucket.next_at(now),
        declared_at=row["declared_at"],
    )


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
            tuple(map(Limit.stored, row["limits"], row["capacities"])),
            row["used"],
            row["waiting"],
        )
        for row in await connection.fetch(SQL["read_wait_queues"], waited_for, [])
    }
    tags = (f"{TAG}{name}" for name in _names(queues.values(), TAG))
    named = [*_names(queues.values(), POOL), *tags]
    slots = await connection.fetch(SQL["read_pools"], named)
    rates = _names(queues.values(), RATE)
    limited = await connection.fetch(SQL["read_rate_limits"], rates) if rates else []
    buckets = {row["name"]: (_bucket(row), row["now"]) for row in limited}
    capacity = Capacity(
        queues.values(),
        {row["name"]: row["slots"] for row in slots},
        {name: bucket.available(now) for name, (bucket, now) in buckets.items()},
    )
    reasons = {
        each: _reason(capacity, queues[each], buckets) for each in waited_for if each in queues
    }
    return {
        (row["node"], row["map_index"]): reasons[row["wait_queue"]]
        for row in waiting
        if row["wait_queue"] in reasons
    }


def _names(queues: Iterable[WaitQueue], prefix: str) -> list[str]:
    names = {limit.name for queue in queues for limit in queue.limits}
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _reason(capacity: Capacity, queue: WaitQueue, buckets: _Buckets) -> str:
    full = [_describe(each, buckets) for each in capacity.full(queue)]
    return ", ".join(full) or "its turn"


def _describe(full: FullLimit, buckets: _Buckets) -> str:
    limit = full.limit
    kind, _, rest = limit.name.partition(":")
    if limit.name.startswith(RATE):
        if rest not in buckets:
            return f"rate limit {rest}"
        bucket, now = buckets[rest]
        moment = f"{bucket.next_at(now):%H:%M:%S} UTC"
        return f"rate limit {rest}: {bucket.spec.describe()}, next at {moment}"
    name = f"{_NAMES[kind + ':']} {rest}"
    if limit.weight > full.slots:
        return (
            f"{name}: it takes {limit.weight} slots and there are {full.slots}: "
            f"`pubsubflow pools set {rest} {limit.weight}`, or a smaller pool_slots="
        )
    needs = f", it takes {limit.weight}" if limit.weight > 1 else ""
    return f"{name}: {full.used} of {full.slots} slots used{needs}"

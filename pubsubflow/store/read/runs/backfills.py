"""Backfills, read for the API: their progress and their plans."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Meta, Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.api.backfills import (
    COUNTED,
    PLANNED,
    PRUNED,
    BackfillView,
    PlannedRunView,
)
from pubsubflow.model.api.resources import Page
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.backfills import (
    MAX_PLANNED_RUNS,
    STORED_PLAN,
    BackfillState,
    PartitionPlan,
    Planned,
    PlannedPartition,
    PlannedTick,
)
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag

_LAST = UUID(int=2**128 - 1)


class PlanPosition(Struct, frozen=True):
    """Where a page of a plan begins.

    Attributes:
        taken: How many runs come before.
        reached: The last tick of these.
    """

    taken: Annotated[int, Meta(ge=0, le=MAX_PLANNED_RUNS)] = 0
    reached: Annotated[datetime, Meta(tz=True)] | None = None


class ReadBackfills:
    """Queries about backfills."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        dag_id: str | None = None,
        states: Sequence[BackfillState] = (),
    ) -> Page[BackfillView]:
        """Return backfills, the newest first.

        Args:
            limit: How many at most.
            after: The `next` of the page before.
            dag_id: Only those of this DAG.
            states: Only those in one of these states.

        Raises:
            NotFound: The DAG does not exist.
        """
        async with self._database.search() as connection:
            dag = None if dag_id is None else await find_dag(connection, dag_id)
            rows = await connection.fetch(
                SQL["page_backfills"], after or _LAST, limit, dag, list(states) or None
            )
            items = await _views(connection, rows)
        return Page(items, items[-1].backfill_id if len(items) == limit else None)

    async def get(self, backfill_id: UUID) -> BackfillView:
        """Return a backfill.

        Raises:
            NotFound: No backfill has this id.
        """
        async with self._database.connection() as connection:
            (view,) = await _views(connection, [await _find(connection, backfill_id)])
        return view

    async def ended(self, backfill_id: UUID) -> bool:
        """Return whether a backfill has nothing left to do.

        Raises:
            NotFound: No backfill has this id.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["find_backfill"], backfill_id)
        if row is None:
            raise NotFound("backfill", str(backfill_id))
        return not row["open"]

    async def live_runs(self, backfill_id: UUID) -> list[UUID]:
        """Return the runs of a backfill that have not ended.

        Raises:
            NotFound: No backfill has this id.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["find_backfill"], backfill_id)
            if row is None:
                raise NotFound("backfill", str(backfill_id))
            rows = await connection.fetch(SQL["list_live_runs_of_backfill"], row["id"])
        return [row["run_id"] for row in rows]

    async def plan(
        self, backfill_id: UUID, *, limit: int, after: PlanPosition | None = None
    ) -> Page[PlannedRunView]:
        """Return the runs of a plan in its order, as they are now.

        Args:
            backfill_id: The backfill.
            limit: How many at most.
            after: The `next` of the page before, decoded.

        Raises:
            NotFound: No backfill has this id.
        """
        position = after or PlanPosition()
        async with self._database.search() as connection:
            row = await _find(connection, backfill_id)
            planned = await _planned(connection, row, position, limit)
            items = await _runs(connection, row, planned, position.taken)
        taken = position.taken + len(items)
        if not items or taken >= row["planned"]:
            return Page(items, None)
        following = PlanPosition(taken, planned[-1].logical_time)
        return Page(items, msgspec.json.encode(following).decode())


async def _find(connection: Connection, backfill_id: UUID) -> asyncpg.Record:
    row = await connection.fetchrow(SQL["read_backfill"], backfill_id)
    if row is None:
        raise NotFound("backfill", str(backfill_id))
    return row


async def _views(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[BackfillView]:
    counts: dict[int, dict[str, int]] = {row["id"]: {} for row in rows}
    for row in await connection.fetch(SQL["count_runs_of_backfills"], sorted(counts)):
        counts[row["backfill"]][COUNTED[RunState(row["state"])]] = row["runs"]
    return [_view(row, counts[row["id"]]) for row in rows]


def _view(row: asyncpg.Record, counts: dict[str, int]) -> BackfillView:
    plan = None if row["plan"] is None else STORED_PLAN.decode(row["plan"])
    return BackfillView(
        backfill_id=str(row["backfill_id"]),
        dag_id=row["dag_id"],
        state=row["state"],
        reason=row["reason"],
        description=row["description"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        since=None if plan is None else plan.since,
        until=None if plan is None else plan.until,
        partitions=row["planned"] if plan is None else None,
        params=row["params"],
        newest_first=row["newest_first"],
        reprocess=row["reprocess"],
        max_active_runs=row["max_active"],
        planned=row["planned"],
        left=row["planned"] - row["decided"],
        exists=row["decided"] - row["made"],
        **{name: counts.get(name, 0) for name in COUNTED.values()},
        pruned=max(0, row["made"] - sum(counts.values())),
    )


async def _planned(
    connection: Connection, row: asyncpg.Record, position: PlanPosition, limit: int
) -> list[Planned]:
    count = min(limit, row["planned"] - position.taken)
    if count <= 0:
        return []
    if row["plan"] is not None:
        plan, reached = STORED_PLAN.decode(row["plan"]), position.reached
        if reached is not None:
            reached = max(plan.since, min(reached, plan.until))
        return [PlannedTick(each) for each in plan.take(reached, count)]
    order = PartitionPlan(row["planned"], row["newest_first"])
    bounds = order.bounds(position.taken, count)
    keys = await connection.fetchval(SQL["read_backfill_partitions"], row["id"], *bounds)
    return [PlannedPartition(key) for key in order.ordered(keys)]


async def _runs(
    connection: Connection, row: asyncpg.Record, planned: Sequence[Planned], taken: int
) -> list[PlannedRunView]:
    rows = await connection.fetch(
        SQL["find_planned_runs"],
        row["dag"],
        [each.run_key for each in planned],
        [each.logical_time for each in planned],
        [each.partition for each in planned],
        None,
    )
    found = {each["run_key"]: (each["run_id"], each["state"]) for each in rows}
    runs = [run_id for run_id, _ in found.values()]
    made = await connection.fetch(SQL["list_runs_made_by_backfill"], row["id"], runs)
    own = {each["run_id"] for each in made}
    items = []
    for number, each in enumerate(planned, taken + 1):
        run_id, state = found.get(each.run_key, (None, None))
        absent = PRUNED if number <= row["decided"] else PLANNED
        items.append(
            PlannedRunView(
                number=number,
                state=state or absent,
                exists=run_id is not None and run_id not in own,
                logical_time=each.logical_time,
                partition=each.partition,
                run_id=None if run_id is None else str(run_id),
            )
        )
    return items

"""Triggers: waits of tasks and watched datasets, read for the API."""

import asyncpg

from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.triggers import TriggerView
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

_NEWEST = 2**63 - 1
_LEASED = {"trigger", "watch"}


class ReadTriggers:
    """Queries about triggers."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self, *, limit: int, kind: str | None = None, after: int | None = None
    ) -> Page[TriggerView]:
        """Return waits and watches, newest first.

        Args:
            limit: Number of triggers at most.
            kind: Only those of this kind.
            after: The last number of the page before.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["page_triggers"], _NEWEST if after is None else after, limit, kind
            )
            sums = await connection.fetchrow(SQL["count_triggerers"])
            specs = await self._specs.load(connection, (row["version"] for row in rows))
        # Without live triggerers a trigger is unclaimed, not over capacity.
        full = sums is not None and sums["number"] > 0 and sums["room"] == 0
        items = [_view(row, specs, full=full) for row in rows]
        return Page(items, str(items[-1].number) if len(items) == limit else None)


def _view(row: asyncpg.Record, specs: dict[int, DagSpec], *, full: bool) -> TriggerView:
    run_id, version, index = row["run_id"], row["version"], row["map_index"]
    return TriggerView(
        number=row["number"],
        kind=row["kind"],
        name=row["name"],
        state=_state(row, full=full),
        since=row["created_at"],
        due_at=row["due_at"],
        owner=row["owner"],
        run_id=None if run_id is None else str(run_id),
        dag_id=row["dag_id"],
        task_id=None if version is None else specs[version].tasks[row["node"]].task_id,
        map_index=None if index == NOT_MAPPED else index,
        dataset=row["dataset"],
        error=row["error"],
    )


def _state(row: asyncpg.Record, *, full: bool) -> str:
    if row["cancelled"]:
        return "cancelled"
    if row["kind"] not in _LEASED or row["owner"] is not None:
        return "waiting"
    return "over capacity" if full else "unclaimed"

"""Client methods for backfills."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.backfills import BackfillView, PlannedRunView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import explain as explanations
else:
    explanations = lazy_module("pubsubflow.model.api.explain")

_WAIT_SECONDS = 20.0


class BackfillApi:
    """Methods of the client for backfills."""

    _server: Transport

    async def backfill(
        self,
        dag_id: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        partitions: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        again: bool = False,
        only_failed: bool = False,
        newest_first: bool = False,
        max_active_runs: int | None = None,
        description: str | None = None,
    ) -> "explanations.PlannedRuns":
        """Start the runs of past ticks or of partitions that do not exist yet, as there is room.

        Args:
            dag_id: The DAG.
            since: The first tick.
            until: The end of the ticks, exclusive; now if left out.
            partitions: Partition keys, in place of ticks.
            params: Values in place of the DAG's defaults.
            dry_run: Only return which runs would start.
            again: Also start runs that exist.
            only_failed: Also start runs whose last one failed or was cancelled.
            newest_first: Begin with the latest tick, or the last partition.
            max_active_runs: How many of its runs may be active, apart from the other runs of the
                DAG; if left out, they count against the DAG's own limit.
            description: A line for people.
        """
        body: dict[str, Any] = {
            "from": since,
            "to": until,
            "partitions": partitions,
            "params": params,
            "dry_run": dry_run,
            "again": again,
        }
        # Servers of before refuse fields that they do not know.
        body |= {"only_failed": True} if only_failed else {}
        body |= {"newest_first": True} if newest_first else {}
        body |= {"max_active_runs": max_active_runs} if max_active_runs is not None else {}
        body |= {"description": description} if description is not None else {}
        path = f"/api/v1/dags/{quoted(dag_id)}/backfill"
        return await self._server.send("POST", path, body, explanations.PlannedRuns)

    def backfills(
        self,
        *,
        dag_id: str | None = None,
        states: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[BackfillView]:
        """Yield backfills with their progress, the newest first.

        Args:
            dag_id: Only those of this DAG.
            states: Only those in one of these states.
            limit: How many at most.
        """
        query = {"dag": dag_id, "state": list(states)}
        return self._server.list("/api/v1/backfills", Page[BackfillView], query, limit)

    async def backfill_progress(self, backfill_id: str) -> BackfillView:
        """Return a backfill and its progress."""
        return await self._server.get(_one(backfill_id), BackfillView)

    def backfill_plan(
        self, backfill_id: str, *, limit: int | None = None
    ) -> AsyncIterator[PlannedRunView]:
        """Yield the runs of a backfill's plan in its order, each as it is now."""
        path = f"{_one(backfill_id)}/plan"
        return self._server.list(path, Page[PlannedRunView], {}, limit)

    async def wait_for_backfill(
        self, backfill_id: str, *, timeout_seconds: float | None = None
    ) -> BackfillView:
        """Wait until all runs of a backfill have ended, or until the timeout; return it."""
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            # Several short waits: each must end before the timeout of its request.
            part = max(0.0, min(left, _WAIT_SECONDS, self._server.timeout_seconds / 2))
            path = f"{_one(backfill_id)}/wait"
            found = await self._server.get(path, BackfillView, {"timeout": f"{part:.3f}"})
            if found.over or (give_up is not None and left <= part):
                return found

    async def pause_backfill(self, backfill_id: str, *, reason: str | None = None) -> BackfillView:
        """Pause a backfill: it makes no more runs until it is resumed; return it."""
        return await self._set(backfill_id, "pause", {"reason": reason})

    async def resume_backfill(self, backfill_id: str) -> BackfillView:
        """Resume a paused backfill; return it."""
        return await self._set(backfill_id, "resume", None)

    async def cancel_backfill(
        self, backfill_id: str, *, running: bool = False, reason: str | None = None
    ) -> BackfillView:
        """Cancel a backfill: it makes no more runs; return it.

        Args:
            backfill_id: The backfill.
            running: Also cancel the runs that it has made and that have not ended.
            reason: Why, for people.
        """
        return await self._set(backfill_id, "cancel", {"running": running, "reason": reason})

    async def _set(self, backfill_id: str, verb: str, body: dict[str, Any] | None) -> BackfillView:
        path = f"{_one(backfill_id)}/{verb}"
        return await self._server.send("POST", path, body, BackfillView, idempotent=True)


def _one(backfill_id: str) -> str:
    return f"/api/v1/backfills/{quoted(backfill_id)}"

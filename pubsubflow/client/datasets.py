"""Questions about datasets, their events, and the webhooks through which they come."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pubsubflow.client.transport import Transport
from pubsubflow.model.api.explain import EventFate, PlannedRuns
from pubsubflow.model.api.resources import DatasetView, EventView, Page, PostedEvents
from pubsubflow.model.api.webhooks import HookView


class DatasetCalls:
    """The part of a client that is about datasets, events and webhooks."""

    _server: Transport

    def datasets(self, *, limit: int | None = None) -> AsyncIterator[DatasetView]:
        """Yield datasets by URI."""
        return self._server.list("/api/v1/datasets", Page[DatasetView], {}, limit)

    async def emit(self, events: Sequence[Mapping[str, Any]]) -> PostedEvents:
        """Post dataset events and return their ids once they are durable.

        Args:
            events: Each with `dataset`, and perhaps `extra`, `partition`, `time`, `id`.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/v1/datasets/events"
        return await self._server.send(
            "POST", path, events, PostedEvents, headers=headers, again=True
        )

    def events(
        self, *, dataset: str | None = None, limit: int | None = None
    ) -> AsyncIterator[EventView]:
        """Yield dataset events, the newest first.

        Args:
            dataset: Only those of this URI.
            limit: Number of events at most; None for all.
        """
        path = "/api/v1/datasets/events"
        return self._server.list(path, Page[EventView], {"dataset": dataset}, limit)

    def event_fates(
        self, *, dataset: str | None = None, limit: int | None = None
    ) -> AsyncIterator[EventFate]:
        """Yield dataset events as `events` does, each with what became of it per subscription."""
        path, asked = "/api/v1/datasets/events", {"dataset": dataset, "fate": True}
        return self._server.list(path, Page[EventFate], asked, limit)

    async def event_fate(self, event_id: str) -> EventFate:
        """Return one event with what became of it per subscription."""
        asked = {"event": event_id, "fate": True}
        page = await self._server.get("/api/v1/datasets/events", Page[EventFate], asked)
        return page.items[0]

    async def replay(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        dataset: str | None = None,
        dags: Sequence[str] = (),
        dry_run: bool = False,
        again: bool = False,
    ) -> list[PlannedRuns]:
        """Let DAGs decide about past events once more, from nothing pending.

        Args:
            since: From when on the events were recorded.
            until: Until when, itself excluded; now if left out.
            dataset: Only events of this URI; None for all that the DAGs subscribe to.
            dags: Which DAGs; all that subscribe to the dataset if left out.
            dry_run: Only tell what would start.
            again: Also make runs that exist.
        """
        asked = {
            "from": since,
            "to": until,
            "dataset": dataset,
            "dags": dags,
            "dry_run": dry_run,
            "again": again,
        }
        return await self._server.send("POST", "/api/v1/datasets/replay", asked, list[PlannedRuns])

    def hooks(self, *, limit: int | None = None) -> AsyncIterator[HookView]:
        """Yield webhooks by name, with what came through each since the daemon has started."""
        return self._server.list("/api/v1/hooks", Page[HookView], {}, limit)

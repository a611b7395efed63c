"""Client methods for datasets, their events, and webhooks."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.datasets import DatasetDetail
from pubsubflow.model.api.resources import DatasetView, EventView, Page, PostedEvents
from pubsubflow.model.api.webhooks import WebhookView
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import explain as explanations
    from pubsubflow.model.api.history import causality
    from pubsubflow.model.api.overviews import graph
else:
    explanations = lazy_module("pubsubflow.model.api.explain")
    causality = lazy_module("pubsubflow.model.api.history.causality")
    graph = lazy_module("pubsubflow.model.api.overviews.graph")


class DatasetApi:
    """Methods of the client for datasets, events and webhooks."""

    _server: Transport

    def datasets(
        self,
        *,
        text: str | None = None,
        held: bool | None = None,
        stale: bool | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[DatasetView]:
        """Yield datasets by URI.

        Args:
            text: Only those with this in their URI, in any case.
            held: Only those of which checks hold events.
            stale: Only those that are stale.
            limit: Number of datasets at most; None for all.
        """
        chosen = {"text": text, "held": held or None, "stale": stale or None}
        return self._server.list("/api/v1/datasets", Page[DatasetView], chosen, limit)

    async def dataset_graph(
        self, uri: str, *, up: int = 2, down: int = 2, limit: int = 200
    ) -> "graph.DatasetGraph":
        """Return a dataset with the DAGs and datasets that lead to it and that follow.

        Args:
            uri: The dataset in the middle.
            up: How many DAGs far to go towards what leads to it.
            down: How many DAGs far to go towards what follows.
            limit: How many datasets and DAGs at most; the nearest are kept.
        """
        params = {"around": uri, "up": up, "down": down, "limit": limit}
        return await self._server.get("/api/v1/graph", graph.DatasetGraph, params)

    async def dataset(self, uri: str) -> DatasetDetail:
        """Return a dataset with its producers, consumers, open alerts and last events."""
        return await self._server.get("/api/v1/datasets/detail", DatasetDetail, {"dataset": uri})

    async def emit(self, events: Sequence[Mapping[str, Any]]) -> PostedEvents:
        """Post dataset events; return their ids once they are durable.

        Args:
            events: Each with `dataset`, and optionally `extra`, `partition`, `time`, `id`.
        """
        # A retry after a lost response then returns the events of the first attempt.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/v1/datasets/events"
        return await self._server.send(
            "POST", path, events, PostedEvents, headers=headers, idempotent=True
        )

    def events(
        self,
        *,
        dataset: str | None = None,
        partition: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[EventView]:
        """Yield dataset events, the newest first.

        Args:
            dataset: Only those of this URI.
            partition: Only those of this partition of the dataset.
            since: Only those that became durable then or later; with a zone.
            until: Only those that became durable earlier; with a zone.
            limit: Number of events at most; None for all.
        """
        chosen = _filter(dataset, partition, since, until)
        return self._server.list("/api/v1/datasets/events", Page[EventView], chosen, limit)

    def events_with_outcomes(
        self,
        *,
        dataset: str | None = None,
        partition: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> "AsyncIterator[explanations.EventWithOutcomes]":
        """Yield dataset events as `events` does, each with its outcome for every subscribed DAG."""
        chosen = _filter(dataset, partition, since, until) | {"fate": True}
        path = "/api/v1/datasets/events"
        return self._server.list(path, Page[explanations.EventWithOutcomes], chosen, limit)

    async def event_outcomes(self, event_id: str) -> "explanations.EventWithOutcomes":
        """Return an event with its outcome for every subscribed DAG."""
        params = {"event": event_id, "fate": True}
        page = await self._server.get(
            "/api/v1/datasets/events", Page[explanations.EventWithOutcomes], params
        )
        return page.items[0]

    async def event_trace(
        self, event_id: str, *, causes: int = 4, effects: int = 4, breadth: int = 12, skip: int = 0
    ) -> "causality.CausalTrace":
        """Return what led to an event, and what it has led to; see `trace` for a run."""
        params = {"causes": causes, "effects": effects, "breadth": breadth, "skip": skip}
        path = f"/api/v1/datasets/events/{quoted(event_id)}/trace"
        return await self._server.get(path, causality.CausalTrace, params)

    async def replay(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        dataset: str | None = None,
        dags: Sequence[str] = (),
        dry_run: bool = False,
        again: bool = False,
    ) -> "list[explanations.PlannedRuns]":
        """Replay past events for DAGs, beginning with no pending events.

        Args:
            since: The time from which on the events were recorded.
            until: The end of that time, exclusive; now if left out.
            dataset: Only events of this URI; None for all that the DAGs subscribe to.
            dags: The DAGs; all that subscribe to the dataset if left out.
            dry_run: Only return which runs would start.
            again: Also start runs that exist.
        """
        body = {
            "from": since,
            "to": until,
            "dataset": dataset,
            "dags": dags,
            "dry_run": dry_run,
            "again": again,
        }
        return await self._server.send(
            "POST", "/api/v1/datasets/replay", body, list[explanations.PlannedRuns]
        )

    def hooks(self, *, limit: int | None = None) -> AsyncIterator[WebhookView]:
        """Yield webhooks by name, with the number of requests since the daemon started."""
        return self._server.list("/api/v1/hooks", Page[WebhookView], {}, limit)


def _filter(
    dataset: str | None, partition: str | None, since: datetime | None, until: datetime | None
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "partition": partition,
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
    }

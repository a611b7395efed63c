"""Routes of causality: the causes and effects of a run, a task or an event."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import parse_query, run_id
from pubsubflow.api.http.routing import Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.errors import NotFound
from pubsubflow.model.api.history.causality import CausalTrace
from pubsubflow.store.read.read_models import ReadModels

Hops = Annotated[int, Meta(ge=0, le=20)]


class TraceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a trace.

    Attributes:
        causes: How many steps back: from a run to an event, or from an event to a run, is one.
        effects: How many steps on.
        breadth: How many causes, or effects, of each node at most.
        skip: How many of those of the run or event itself are left out; for one direction alone.
    """

    causes: Hops = 4
    effects: Hops = 4
    breadth: Annotated[int, Meta(ge=1, le=200)] = 12
    skip: Annotated[int, Meta(ge=0, le=100_000)] = 0

    @property
    def bounds(self) -> dict[str, int]:
        """The bounds of the walk.

        Raises:
            BadRequest: It skips in both directions.
        """
        if self.skip and self.causes and self.effects:
            raise BadRequest("skip goes with causes=0 or with effects=0", field="skip")
        return {
            "causes": self.causes,
            "effects": self.effects,
            "breadth": self.breadth,
            "skip": self.skip,
        }


class RunTraceQuery(TraceQuery, frozen=True, forbid_unknown_fields=True):
    """The query string of a run's trace.

    Attributes:
        task: Only effects of this task: its id, with `.<map index>` for one instance.
    """

    task: Annotated[str, Meta(min_length=1, max_length=512)] | None = None


_EVENT: dict[str, Any] = {"event_id": Annotated[UUID, Meta(description="Id of the event.")]}


class CausalityRoutes:
    """Handlers of `/api/v1/runs/{run_id}/trace` and `/api/v1/datasets/events/{event_id}/trace`."""

    def __init__(self, read_models: ReadModels) -> None:
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/runs/{run_id}/trace",
            self.trace_run,
            query=RunTraceQuery,
            responses={200: CausalTrace},
            problems=(422,),
            etag=True,
        )
        yield routing.get(
            "/api/v1/datasets/events/{event_id}/trace",
            self.trace_event,
            query=TraceQuery,
            responses={200: CausalTrace},
            problems=(422,),
            names=_EVENT,
            etag=True,
        )

    async def trace_run(self, request: web.Request) -> web.Response:
        """Show what led to a run, and what it has led to: events, and the runs between them.

        Of each node as many causes and effects are shown as `breadth` says, those that failed
        first; its counts say how many there are.
        """
        params = parse_query(request, RunTraceQuery)
        key, causality = run_id(request), self._read_models.causality
        if params.task is None:
            found = await causality.of_run(key, **params.bounds)
        else:
            task = await self._read_models.tasks.find(key, params.task)
            found = await causality.of_task(task, **params.bounds)
        return json_with_etag(request, found)

    async def trace_event(self, request: web.Request) -> web.Response:
        """Show what led to an event, and what it has led to; see the trace of a run."""
        params = parse_query(request, TraceQuery)
        text = request.match_info["event_id"]
        try:
            key = UUID(text)
        except ValueError:
            raise NotFound("event", text) from None
        found = await self._read_models.causality.of_event(key, **params.bounds)
        rights = rights_of_request()
        datasets = [each.dataset for each in found.events if each.event_id == found.id]
        if rights is not None and not all(map(rights.sees_dataset, datasets)):
            raise NotFound("event", text)
        return json_with_etag(request, found)

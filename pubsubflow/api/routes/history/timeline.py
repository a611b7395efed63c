"""Route of timelines: when the tasks of a run were queued, ran, waited and paused."""

from collections.abc import Iterable
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.requests import parse_query, run_id
from pubsubflow.api.http.routing import Route
from pubsubflow.model.api.history.timeline import RunTimeline
from pubsubflow.store.read.history.timeline import MOST_SINGLE
from pubsubflow.store.read.read_models import ReadModels

Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TimelineQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a timeline.

    Attributes:
        task: Only the lane of this task, with its instances one by one.
        first: The `next` of the lanes before.
        skip: How many instances of the task are left out.
        limit: A mapped task with more instances is a band; of a named task so many are shown.
    """

    task: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    first: Number = field(name="from", default=0)
    skip: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = MOST_SINGLE


class TimelineRoutes:
    """Handler of `/api/v1/runs/{run_id}/timeline`."""

    def __init__(self, read_models: ReadModels) -> None:
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/runs/{run_id}/timeline",
            self.show,
            query=TimelineQuery,
            responses={200: RunTimeline},
            etag=True,
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show when the tasks of a run were queued, ran, waited and paused, by task.

        Of a mapped task with many instances a band says how many ran when.
        """
        params = parse_query(request, TimelineQuery)
        found = await self._read_models.timelines.get(
            run_id(request),
            task=params.task,
            first=params.first,
            skip=params.skip,
            limit=params.limit,
        )
        return json_with_etag(request, found)

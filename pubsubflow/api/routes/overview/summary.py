"""Routes that sum up: what happens now, the grid of a DAG's runs, its schedule."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import replace

from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, cursor_at, read_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import parse_query, to_utc
from pubsubflow.api.http.routing import Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.runs.filters import Moment, Text
from pubsubflow.model.api.overviews.runs import RunsGrid, ScheduleView, Summary
from pubsubflow.store.read.overview.summary import History
from pubsubflow.store.read.read_models import ReadModels

_GRID = "grid"
_LONGEST = timedelta(days=366)


class OverviewQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the summary.

    Attributes:
        dag: Failures and history of this DAG alone.
        since, until: Bounds of the history; by default the last 24 hours.
        buckets: Into how many equal parts the history is divided.
        stuck_seconds: Tasks that have been ready for that long count as stuck.
    """

    dag: Text | None = None
    since: Moment | None = None
    until: Moment | None = None
    buckets: Annotated[int, Meta(ge=1, le=200)] = 48
    stuck_seconds: Annotated[float, Meta(ge=0, le=31_536_000)] = 10.0


class GridQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a grid.

    Attributes:
        runs: How many runs at most, from the newest one on.
    """

    runs: Annotated[int, Meta(ge=1, le=200)] = 50
    after: Cursor | None = None


class ScheduleQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a schedule.

    Attributes:
        count: How many ticks at most, of those to come and of those past.
    """

    count: Annotated[int, Meta(ge=1, le=200)] = 20


class SummaryRoutes:
    """Handlers of `/api/v1/summary`, and of grids and schedules of DAGs.

    Args:
        read_models: Reads what is summed up.
        now: The time.
    """

    def __init__(self, read_models: ReadModels, now: Callable[[], datetime]) -> None:
        self._read_models = read_models
        self._now = now

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/summary",
            self.summary,
            query=OverviewQuery,
            responses={200: Summary},
            problems=(404, 422),
            etag=True,
        )
        yield routing.get(
            "/api/v1/dags/{dag_id}/grid",
            self.grid,
            query=GridQuery,
            responses={200: RunsGrid},
            etag=True,
        )
        yield routing.get(
            "/api/v1/dags/{dag_id}/schedule",
            self.schedule,
            query=ScheduleQuery,
            responses={200: ScheduleView},
            etag=True,
        )

    async def summary(self, request: web.Request) -> web.Response:
        """Sum up what happens now: unfinished work, failures, what is stuck, runs over time."""
        params = parse_query(request, OverviewQuery)
        until = to_utc(params.until, field="until", status=400) or self._now()
        try:
            since = to_utc(params.since, field="since", status=400) or until - timedelta(days=1)
        except OverflowError:
            raise BadRequest("until is out of range", status=400, field="until") from None
        if not timedelta(0) < until - since <= _LONGEST:
            raise BadRequest(
                "since must be before until, by at most 366 days", status=422, field="since"
            )
        rights = rights_of_request()
        if params.dag is not None:
            check_dag(rights, params.dag)
        history = History(since, until, params.buckets, params.dag)
        found = await self._read_models.summary.summary(history, stuck_seconds=params.stuck_seconds)
        if params.dag is None and rights is not None and not rights.sees_all:
            found = replace(found, history=[])  # of all DAGs
        return json_with_etag(request, found)

    async def grid(self, request: web.Request) -> web.Response:
        """Show the states of the tasks of a DAG's last runs, packed: a character a task."""
        params = parse_query(request, GridQuery)
        dag_id = request.match_info["dag_id"]
        name = f"{_GRID} {dag_id}"
        found = await self._read_models.grids.grid(
            dag_id, runs=params.runs, after=read_cursor(name, params.after, UUID)
        )
        if found.next is not None:
            found = replace(found, next=cursor_at(name, found.next))
        return json_with_etag(request, found)

    async def schedule(self, request: web.Request) -> web.Response:
        """Show when a DAG starts by itself: its next ticks, and the runs of the last ones."""
        params = parse_query(request, ScheduleQuery)
        found = await self._read_models.schedules.schedule(
            request.match_info["dag_id"], now=self._now(), count=params.count
        )
        return json_with_etag(request, found)

"""Routes of simulations: what a schedule would make of events, without a run."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_body, to_utc
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.server.fair_queue import RequestShares
from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.simulations import InventedEvent, SimulationOrder, SimulationView
from pubsubflow.store.read.read_models import ReadModels

MOST_EVENTS = 500
_MOST_WAITING = 32
_LONGEST = timedelta(days=400)
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
Moment = Annotated[datetime, Meta(tz=True)]
Text = Annotated[str, Meta(min_length=1, max_length=8000)]
Simulate = Callable[[SimulationOrder, str], Awaitable[SimulationView]]


class EventRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """An event of a simulation.

    Attributes:
        dataset: Its URI.
        time: When it happens and is recorded.
    """

    dataset: Annotated[str, Meta(min_length=1, max_length=1500)]
    time: Moment
    partition: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    extra: dict[str, Any] = {}


class SimulationRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request for a simulation.

    Attributes:
        dag: The DAG whose schedule and params are taken.
        schedule: In place of its schedule, or without a DAG: one as Python, such as
            `Dataset("s3://lake/orders") & Cron("0 6 * * *")`.
        events: In any order; at most 500.
        since: Where time begins; an hour before the first event if left out.
        until: Where it ends, at most 400 days later; a day after the last event if left out.
        lasts_seconds: How long each run is active.
    """

    dag: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    schedule: Text | None = None
    events: Annotated[tuple[EventRequest, ...], Meta(max_length=MOST_EVENTS)] = ()
    since: Moment | None = field(name="from", default=None)
    until: Moment | None = field(name="to", default=None)
    lasts_seconds: Annotated[float, Meta(ge=0, le=86400 * 30)] = 0.0


_decoder = msgspec.json.Decoder(SimulationRequest)


class SimulationRoutes:
    """Handlers of `/api/v1/schedules/simulate`.

    Args:
        read_models: Reads the schedules of DAGs.
        simulate: Carries out simulations.
    """

    def __init__(self, read_models: ReadModels, simulate: Simulate) -> None:
        self._read_models = read_models
        self._simulate = simulate
        self._shares = RequestShares(_MOST_WAITING)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/schedules/simulate",
            self.simulate,
            access=Access.VIEWER,
            query=NoQuery,
            body=SimulationRequest,
            responses={200: SimulationView},
            problems=(404, 429),
            only_reads=True,
        )

    async def simulate(self, request: web.Request) -> web.Response:
        """Show which runs a schedule would start for given events; nothing is stored or started."""
        payload = await parse_body(request, _decoder)
        if payload.dag is None and payload.schedule is None:
            raise BadRequest("name a DAG, or write a schedule", field="schedule")
        spec = None
        if payload.dag is not None:
            check_dag(rights_of_request(), payload.dag)
            spec = await self._read_models.dags.encoded_spec(payload.dag)
        since, until = _bounds(payload)
        events = tuple(
            InventedEvent(each.dataset, each.time, each.partition, each.extra)
            for each in payload.events
        )
        order = SimulationOrder(payload.schedule, spec, events, since, until, payload.lasts_seconds)
        share = _share_of(request)
        if not self._shares.has_room(share):
            raise BadRequest(
                "too many simulations wait: simulate again later",
                status=429,
                headers={"Retry-After": "5"},
            )
        try:
            with self._shares.take(share):
                return json_response(await self._simulate(order, share))
        except InvalidInput as error:
            raise BadRequest(str(error), field="schedule") from error


def _share_of(request: web.Request) -> str:
    """Return who simulates: a token or a person."""
    principal = request.get(PRINCIPAL)
    return "" if principal is None else str(principal.token or principal.name)


def _bounds(payload: SimulationRequest) -> tuple[datetime, datetime]:
    """Return the time to look at.

    Raises:
        BadRequest: It ends before it begins, or is too long.
    """
    times = sorted(_utc(each.time, "events") for each in payload.events)
    try:
        first = times[0] - _HOUR if times else datetime.now(UTC)
        since = _utc(payload.since or first, "from")
        until = _utc(payload.until or max([since, *times[-1:]]) + _DAY, "to")
    except OverflowError:
        raise BadRequest("an event is at the end of the calendar", field="events") from None
    if until <= since:
        raise BadRequest(f"the end {until} is not after the beginning {since}", field="to")
    if until - since > _LONGEST:
        raise BadRequest(f"a simulation is of {_LONGEST.days} days at most", field="to")
    return since, until


def _utc(time: datetime, field: str) -> datetime:
    return to_utc(time, field=field) or time

"""Routes of alerts: list, show, acknowledge."""

from collections.abc import Iterable
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, with_cursor
from pubsubflow.api.http.requests import Limit, NoQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.alerts import AlertDetail, AlertView
from pubsubflow.model.api.resources import Page
from pubsubflow.store.alerts.alerts import AlertStore

_LIST = "alerts"
_NAMES = {"number": Annotated[int, Meta(ge=1, description="Number of the alert.")]}


class AlertQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of alerts.

    Attributes:
        state: Only those in this state.
        kind: Only those of this kind.
        subject: Only those about this DAG, dataset or check.
    """

    limit: Limit = 50
    after: Cursor | None = None
    state: Literal["open", "acknowledged", "ended"] | None = None
    kind: Literal["deadline", "freshness", "callback", "check"] | None = None
    subject: str | None = None


class AlertRoutes:
    """Handlers of `/api/v1/alerts`.

    Args:
        alerts: The stored alerts.
    """

    def __init__(self, alerts: AlertStore) -> None:
        self._alerts = alerts

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        several, one = "/api/v1/alerts", "/api/v1/alerts/{number}"
        yield routing.get(
            several, self.list_all, query=AlertQuery, responses={200: Page[AlertView]}
        )
        yield routing.get(one, self.show, query=NoQuery, responses={200: AlertDetail}, names=_NAMES)
        yield Route(
            method="POST",
            path=f"{one}/acknowledge",
            handler=self.acknowledge,
            access=Access.OPERATOR,
            query=NoQuery,
            responses={200: AlertDetail},
            names=_NAMES,
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List alerts, the newest first."""
        params = parse_query(request, AlertQuery)
        page = await self._alerts.page(
            limit=params.limit,
            after=read_cursor(_LIST, params.after, Number),
            state=params.state,
            kind=params.kind,
            subject=params.subject,
        )
        return json_response(with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show an alert and the calls that it has made."""
        return json_response(await self._alerts.get(_number(request)))

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Acknowledge an open alert; who did first counts."""
        name = request[PRINCIPAL].name
        return json_response(await self._alerts.acknowledge(_number(request), name))


def _number(request: web.Request) -> int:
    text = request.match_info["number"]
    # Numbers that no row can have are of no alert.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0  # noqa: PLR2004

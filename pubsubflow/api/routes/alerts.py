"""Routes of alerts: list, show, acknowledge."""

from collections.abc import Iterable
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.auth.scopes import check_dag
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request, shown_items
from pubsubflow.errors import NotFound
from pubsubflow.model.api.alerts import AlertDetail, AlertView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role, covers
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
        return json_response(await self._seen(_number(request)))

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Acknowledge an open alert; who did first counts."""
        number = _number(request)
        _check_operator(await self._seen(number))
        return json_response(await self._alerts.acknowledge(number, request[PRINCIPAL].name))

    async def _seen(self, number: int) -> AlertDetail:
        """Return an alert.

        Raises:
            NotFound: It does not exist, or may not be seen.
        """
        found = await self._alerts.get(number)
        if not shown_items([found]):
            raise NotFound("alert", str(number))
        return found


def _check_operator(alert: AlertDetail) -> None:
    """Check that the principal of this request may change what an alert is about.

    Raises:
        BadRequest: It may not (403).
    """
    rights = rights_of_request()
    if rights is None:
        return
    if alert.dag_id is not None:
        check_dag(rights, alert.dag_id, Role.OPERATOR)
    elif not covers(rights.role_on_dataset(alert.dataset or ""), Role.OPERATOR):
        raise BadRequest(f"this needs the role operator on dataset {alert.dataset}", status=403)


def _number(request: web.Request) -> int:
    text = request.match_info["number"]
    # Numbers that no row can have are of no alert.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0  # noqa: PLR2004

"""Routes of triggers: list what tasks wait for and what watches datasets."""

from collections.abc import Iterable
from typing import Literal

from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.requests import Limit, parse_query
from pubsubflow.api.http.routing import Route
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.triggers import TriggerView
from pubsubflow.store.read.read_models import ReadModels

_LIST = "triggers"


class TriggersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of triggers.

    Attributes:
        kind: Only those of this kind.
    """

    kind: Literal["time", "trigger", "event", "watch"] | None = None
    limit: Limit = 50
    after: Cursor | None = None


class TriggerRoutes:
    """Handlers of `/api/v1/triggers`."""

    def __init__(self, read_models: ReadModels) -> None:
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/triggers",
            self.list_triggers,
            query=TriggersQuery,
            responses={200: Page[TriggerView]},
            etag=True,
        )

    async def list_triggers(self, request: web.Request) -> web.Response:
        """List what tasks wait for and what watches datasets, the newest first."""
        params = parse_query(request, TriggersQuery)
        page = await seen_page(
            lambda after, limit: self._read_models.triggers.page(
                limit=limit, kind=params.kind, after=after
            ),
            read_cursor(_LIST, params.after, Number),
            params.limit,
        )
        return json_with_etag(request, with_cursor(_LIST, page))

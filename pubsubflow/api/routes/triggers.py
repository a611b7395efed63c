"""What is waited for: listed."""

from collections.abc import Iterable
from typing import Literal

from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.pagination import Cursor, Number, opened, sealed
from pubsubflow.api.http.requests import Limit, query
from pubsubflow.api.http.routing import Route
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.triggers import TriggerView
from pubsubflow.store.read.read_models import Reading

_LIST = "triggers"


class TriggersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of triggers.

    Attributes:
        kind: Only those of this kind.
    """

    kind: Literal["time", "trigger", "event", "watch"] | None = None
    limit: Limit = 50
    after: Cursor | None = None


class Triggers:
    """Handlers of `/api/v1/triggers`."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            "/api/v1/triggers",
            self.list_triggers,
            query=TriggersQuery,
            answers={200: Page[TriggerView]},
            tagged=True,
        )

    async def list_triggers(self, request: web.Request) -> web.Response:
        """List what is waited for, the newest first."""
        asked = query(request, TriggersQuery)
        page = await self._reading.triggers.page(
            limit=asked.limit, kind=asked.kind, after=opened(_LIST, asked.after, Number)
        )
        return tagged(request, sealed(_LIST, page))

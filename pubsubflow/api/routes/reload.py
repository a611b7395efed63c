"""Route of the loader: import all DAG files again."""

from collections.abc import Iterable
from datetime import UTC, datetime

from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.requests import NoQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.model.api.resources import Reload
from pubsubflow.model.wire.subjects import Subjects


class ReloadRoutes:
    """Handler of `/api/v1/dags/reload`.

    Args:
        bus: Carries the request to the loaders.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield routing.post(
            "/api/v1/dags/reload",
            self.reload,
            access=Access.OPERATOR,
            query=NoQuery,
            responses={202: Reload},
        )

    async def reload(self, request: web.Request) -> web.Response:
        """Have all DAG files imported again, whether they have changed or not."""
        parse_query(request, NoQuery)
        self._bus.publish(Subjects.RELOAD, b"")
        return json_response(Reload(requested_at=datetime.now(UTC)), status=202)

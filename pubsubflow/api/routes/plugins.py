"""Routes of plugins: list what is installed beside the daemon, and the types of connections."""

from collections.abc import Iterable

from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.requests import NoQuery
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Route
from pubsubflow.child_calls.catalogue import PluginCatalogue
from pubsubflow.model.api.connection_types import ConnectionType
from pubsubflow.model.api.plugins import PluginView


class PluginRoutes:
    """Handlers of `/api/v1/plugins` and `/api/v1/connection-types`.

    Args:
        catalogue: What is installed.
    """

    def __init__(self, catalogue: PluginCatalogue) -> None:
        self._catalogue = catalogue

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/plugins",
            self.list_plugins,
            query=NoQuery,
            responses={200: list[PluginView]},
        )
        yield routing.get(
            "/api/v1/connection-types",
            self.list_types,
            query=NoQuery,
            responses={200: list[ConnectionType]},
        )

    async def list_plugins(self, _: web.Request) -> web.Response:
        """List the plugins beside this daemon, with why any of them cannot be imported."""
        return json_response(await self._catalogue.plugins())

    async def list_types(self, _: web.Request) -> web.Response:
        """List the types of connections, with their fields."""
        return json_response(await self._catalogue.types())

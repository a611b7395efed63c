"""Routes of the metrics that a monitoring system scrapes."""

from collections.abc import Iterable

from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.routing import MediaBody, Route
from pubsubflow.api.server.metrics_server import Expose, metrics_response

_TEXT = MediaBody(
    ("text/plain", "application/openmetrics-text"), "All metrics of this daemon, a line each."
)


class MetricsRoutes:
    """Handler of `/metrics`.

    Args:
        expose: Returns all metrics as text.
    """

    def __init__(self, expose: Expose) -> None:
        self._expose = expose

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/metrics",
            self.show,
            responses={200: _TEXT},
            headers={"Accept": "`application/openmetrics-text` for OpenMetrics."},
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show all metrics of this daemon, for Prometheus or as OpenMetrics."""
        return await metrics_response(self._expose, request)

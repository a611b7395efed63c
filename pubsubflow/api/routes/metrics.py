"""What a monitoring system scrapes."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from aiohttp import hdrs, web

from pubsubflow.api.http import routing
from pubsubflow.api.http.routing import Media, Route

Expose: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Takes an Accept header; returns all figures as text, and the text's type."""

_TEXT = Media(
    ("text/plain", "application/openmetrics-text"), "All figures of this daemon, a line each."
)


class Metrics:
    """Handler of `/metrics`.

    Args:
        expose: Returns all figures as text.
    """

    def __init__(self, expose: Expose) -> None:
        self._expose = expose

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            "/metrics",
            self.show,
            answers={200: _TEXT},
            headers={"Accept": "`application/openmetrics-text` for OpenMetrics."},
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show all figures of this daemon for Prometheus, as OpenMetrics for who asks for that."""
        body, content_type = await self._expose(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

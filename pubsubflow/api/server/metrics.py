"""Metrics of the HTTP server."""

import time
from collections.abc import Iterator

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pubsubflow.instruments import SECONDS, Gauge, Histogram, Instrument

_HUNDRED = 100


class ApiMetrics:
    """Metrics of one HTTP server.

    Attributes:
        requests: Duration of requests; a stream counts from its first to its last byte.
    """

    def __init__(self) -> None:
        self.requests = Histogram(
            "pubsubflow_http_request_seconds",
            "Duration of HTTP requests by method, route and class of status, such as 2xx, or 499 "
            "for clients that disconnected; streams and waits count to their last byte.",
            SECONDS,
            ("method", "route", "status"),
        )
        self._in_progress = 0

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all metrics."""
        yield self.requests
        yield Gauge(
            "pubsubflow_http_requests_in_progress",
            "HTTP requests that are being served.",
            lambda: self._in_progress,
        )

    def middleware(self) -> Middleware:
        """Return the middleware that times requests; it must be the outermost one."""

        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            since = time.perf_counter()
            self._in_progress += 1
            status = "499"  # stays if the handler is cancelled because the client disconnected
            try:
                response = await handler(request)
                status = f"{response.status // _HUNDRED}xx"
            finally:
                self._in_progress -= 1
                seconds = time.perf_counter() - since
                self.requests.observe(seconds, _method(request), route_of(request), status)
            return response

        return timed


def route_of(request: web.Request) -> str:
    """Return the route with the names of its parameters, so that the label has few values."""
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


def _method(request: web.Request) -> str:
    """Return the method; `other` for unknown ones, so that the label has few values."""
    return request.method if request.method in hdrs.METH_ALL else "other"

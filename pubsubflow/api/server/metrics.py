"""What the API counts."""

import time
from collections.abc import Iterator

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pubsubflow.instruments import SECONDS, Figure, Gauge, Histogram

_HUNDRED = 100


class ApiFigures:
    """What one HTTP server tells about itself.

    Attributes:
        requests: Duration of requests; a stream counts from its first to its last byte.
    """

    def __init__(self) -> None:
        self.requests = Histogram(
            "pubsubflow_http_request_seconds",
            "Duration of HTTP requests by method, route and class of status, such as 2xx, or 499 "
            "for who left before; streams and waits count from their first to their last byte.",
            SECONDS,
            ("method", "route", "status"),
        )
        self._under_way = 0

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        yield self.requests
        yield Gauge(
            "pubsubflow_http_requests_in_progress",
            "HTTP requests that are being answered.",
            lambda: self._under_way,
        )

    def middleware(self) -> Middleware:
        """Return what times every request; it stands outermost."""

        @web.middleware
        async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
            since = time.perf_counter()
            self._under_way += 1
            status = "499"  # whoever asked has left before there was an answer
            try:
                answer = await handler(request)
                status = f"{answer.status // _HUNDRED}xx"
            finally:
                self._under_way -= 1
                seconds = time.perf_counter() - since
                self.requests.observe(seconds, _method(request), route_of(request), status)
            return answer

        return timed


def route_of(request: web.Request) -> str:
    """Return the route with its parameters' names, so that there are not many of them."""
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


def _method(request: web.Request) -> str:
    """Return the method; an invented one is not repeated."""
    return request.method if request.method in hdrs.METH_ALL else "other"

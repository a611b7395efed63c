"""The place of a response: up to which position of the change log it is true.

It is determined before the response is read, so the response has every change up to it, and may
have later ones. A client that applies to it what the live stream sends after it misses nothing.
"""

from functools import wraps

import anyio
import msgspec
from aiohttp import web

from pubsubflow.api.http.routing import MediaBody, Route
from pubsubflow.api.stream.change_feed import ChangeFeed
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.changes import LogPosition
from pubsubflow.store.read.changes import ReadChanges

PLACE = "Psf-Place"
"""The header of the response, and of a request that wants it whatever it costs."""
_SECONDS = 0.5


class Places:
    """Adds the place to responses.

    Args:
        changes: The change log.
        feed: The change feed, which knows the place while there are listeners.
    """

    def __init__(self, changes: ReadChanges, feed: ChangeFeed) -> None:
        self._changes = changes
        self._feed = feed

    def applied_to(self, route: Route) -> Route:
        """Return a route that has the place in its responses, if it reads JSON."""
        if route.method != "GET" or any(
            body is None or isinstance(body, MediaBody) for body in route.responses.values()
        ):
            return route
        handler = route.handler

        @wraps(handler)
        async def placed(request: web.Request) -> web.StreamResponse:
            # Before the handler reads: what is committed later may, or may not, be in its response.
            place = await self.current(wanted=PLACE in request.headers)
            response = await handler(request)
            if place is not None:
                response.headers[PLACE] = str(place)
            return response

        return msgspec.structs.replace(route, handler=placed)

    async def current(self, *, wanted: bool) -> LogPosition | None:
        """Return the position up to which everything is committed; None if that is not known.

        Args:
            wanted: Find it out also while the stream has no listeners.
        """
        if self._feed.is_open:
            return self._feed.end
        if not wanted:
            return None
        # A transaction that takes long holds up the client no longer than this: it goes without.
        with anyio.move_on_after(_SECONDS):
            try:
                head = await self._changes.head()
            except StoreUnavailable:
                return None
            return LogPosition(head.log, head.last + 1)
        return None

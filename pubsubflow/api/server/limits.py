"""What every request passes before its handler: its body is read here, within limits.

Those that bring events pass two more: whether events are taken in at all now, and whether their
lane has its share already.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from hashlib import blake2b

import anyio
import msgspec
from aiohttp import web

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.routing import Route
from pubsubflow.api.server.backpressure import Pressure
from pubsubflow.api.server.connections import Links
from pubsubflow.api.server.fair_queue import LANE, Shares
from pubsubflow.api.settings import ApiSettings
from pubsubflow.api.webhook_cache import Door, Doors
from pubsubflow.errors import NotFound, StoreUnavailable

HOLD_SECONDS = 1.0
"""For how long nothing is read from a connection whose client does not listen to 429."""

PATIENCE = 3
"""Requests in a row that may be refused by 429 before that; a proxy mixes many clients' in one."""
_NOBODY = "hook:?"


class Intake:
    """Puts the limits before handlers.

    Args:
        settings: The limits.
        links: All open connections.
        pressure: Knows whether events are taken in.
        doors: Know which webhooks there are.
        now: The time.
    """

    def __init__(
        self,
        settings: ApiSettings,
        links: Links,
        pressure: Pressure,
        doors: Doors,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._settings = settings
        self._links = links
        self._pressure = pressure
        self._doors = doors
        self._shares = Shares(settings.max_requests)

    def guarded(self, route: Route) -> Route:
        """Return a route whose handler is only reached within the limits."""
        handler = route.handler

        @wraps(handler)
        async def limited(request: web.Request) -> web.StreamResponse:
            self._check_head(request)
            await self._read(request)
            return await handler(request)

        @wraps(handler)
        async def shared(request: web.Request) -> web.StreamResponse:
            door = self._door(request)
            lane = self._lane(request, door)
            try:
                self._admit(request, lane)
                self._check_head(request)
                await self._read(request)
                self._admit(request, lane)
            except (BadRequest, web.HTTPException) as error:
                if door is not None:
                    door.turned_away(str(error), self._now())
                raise
            with self._shares.take(lane):
                LANE.set(lane)
                return await handler(request)

        return msgspec.structs.replace(route, handler=shared if route.intake else limited)

    def _check_head(self, request: web.Request) -> None:
        """Refuse a request before its body is read, if its head tells enough.

        Raises:
            BadRequest: Its body is compressed.
            HTTPRequestEntityTooLarge: The body is too large.
        """
        if not request.body_exists:
            return
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadRequest(
                "send the body as it is, without Content-Encoding",
                status=415,
                headers={"Accept-Encoding": "identity"},
            )
        most = self._settings.max_body_bytes
        if (request.content_length or 0) > most:
            raise web.HTTPRequestEntityTooLarge(most)

    async def _read(self, request: web.Request) -> None:
        """Read the body, which the request keeps.

        Raises:
            BadRequest: It takes too long, or is malformed.
            HTTPRequestEntityTooLarge: It is too large.
        """
        if not request.body_exists:
            return
        try:
            if request.content.is_eof():
                await request.read()
                return
            with anyio.fail_after(self._settings.body_seconds), self._links.waiting(request):
                await request.read()
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise BadRequest(
                f"the body took longer than {seconds:g} s: send less at a time",
                status=408,
                headers={"Connection": "close"},
            ) from None
        except web.RequestPayloadError as error:
            raise BadRequest(f"the body is malformed: {error}", status=400) from error

    def _admit(self, request: web.Request, lane: str) -> None:
        """Let a request that brings events go on.

        Raises:
            BadRequest: It has to come later.
        """
        link = self._links.of(request)
        refusal = self._pressure.refusal
        if refusal is not None:
            reason, seconds = refusal.reason, refusal.retry_seconds
        elif self._shares.has_room(lane):
            link.refusals = 0
            return
        else:
            reason = "more requests of this sender are at work than its share: send fewer at a time"
            seconds = 1
        link.refusals += 1
        if link.refusals > PATIENCE:
            link.hold(HOLD_SECONDS)
        raise BadRequest(reason, status=429, headers={"Retry-After": str(seconds)})

    def _door(self, request: web.Request) -> Door | None:
        """Return the webhook that a request is for, if it is for one that is known."""
        name = request.match_info.get("name")
        try:
            return None if name is None else self._doors.get(name)
        except (NotFound, StoreUnavailable):
            return None

    @staticmethod
    def _lane(request: web.Request, door: Door | None) -> str:
        """Return with whom a request shares: its webhook, its token, or else its address."""
        if door is not None:
            return f"hook:{door.spec.name}"
        if "name" in request.match_info:
            return _NOBODY
        shown = request.headers.get("Authorization")
        if shown is not None:
            data = shown.encode(errors="surrogateescape")  # the bytes, whatever they say
            return f"token:{blake2b(data, digest_size=16).hexdigest()}"
        return f"peer:{request.remote}"

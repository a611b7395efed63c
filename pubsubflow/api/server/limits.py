"""Request limits read bodies within bounds, and refuse events under back-pressure.

Every request passes them before its handler. One that ingests events is also checked against the
back-pressure and against the fair share of its sender.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from hashlib import blake2b
from typing import NoReturn

import anyio
import msgspec
from aiohttp import hdrs, web

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_query
from pubsubflow.api.http.routing import Route
from pubsubflow.api.server.backpressure import Backpressure
from pubsubflow.api.server.connections import ClientConnection, OpenConnections
from pubsubflow.api.server.fair_queue import SHARE_KEY, RequestShares
from pubsubflow.api.settings import ApiSettings
from pubsubflow.api.webhook_cache import WebhookCache, WebhookState
from pubsubflow.errors import NotFound, StoreUnavailable

PAUSE_SECONDS = 1.0
"""For how long nothing is read from a connection whose client does not heed 429."""

PATIENCE = 3
"""Refusals in a row before that; the connection of a proxy carries requests of many clients."""

_UNKNOWN_WEBHOOK = "hook:?"


class RequestLimits:
    """Wraps the handlers of routes with the limits.

    Args:
        settings: The limits.
        connections: The open connections.
        backpressure: Decides whether events are refused.
        webhooks: The webhooks in force.
        now: Returns the current time.
    """

    def __init__(
        self,
        settings: ApiSettings,
        connections: OpenConnections,
        backpressure: Backpressure,
        webhooks: WebhookCache,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._settings = settings
        self._connections = connections
        self._backpressure = backpressure
        self._webhooks = webhooks
        self._shares = RequestShares(settings.max_requests)

    def applied_to(self, route: Route) -> Route:
        """Return a route whose handler is only reached within the limits."""
        handler, no_query = route.handler, route.query is NoQuery

        @wraps(handler)
        async def limited(request: web.Request) -> web.StreamResponse:
            self._check_head(request, no_query=no_query)
            await self._read(request)
            return await handler(request)

        @wraps(handler)
        async def shared(request: web.Request) -> web.StreamResponse:
            webhook = self._webhook(request)
            share_key = self._share_key(request, webhook)
            try:
                # Before the body is read, so that a flood costs no reading; and once more after
                # it, if the load may have changed while a slow body arrived.
                self._admit(request, share_key)
                self._check_head(request, no_query=no_query)
                if await self._read(request):
                    self._admit(request, share_key)
            except (BadRequest, web.HTTPException) as error:
                if webhook is not None:
                    webhook.record_early_refusal(str(error), self._now())
                raise
            with self._shares.take(share_key):
                SHARE_KEY.set(share_key)
                return await handler(request)

        return msgspec.structs.replace(route, handler=shared if route.ingests_events else limited)

    def _check_head(self, request: web.Request, *, no_query: bool) -> None:
        """Refuse a request by its head, before its body is read.

        Raises:
            BadRequest: It has a query string where none is taken, or its body is compressed.
            HTTPRequestEntityTooLarge: The body is too large.
        """
        if no_query and request.query_string:
            parse_query(request, NoQuery)
        if not request.body_exists:
            return
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise BadRequest(
                "send the body as it is, without Content-Encoding",
                status=415,
                headers={"Accept-Encoding": "identity"},
            )
        most = self._settings.max_body_bytes
        if (request.content_length or 0) > most:
            raise web.HTTPRequestEntityTooLarge(most)

    async def _read(self, request: web.Request) -> bool:
        """Read the body; the request caches it for its handler.

        Returns:
            Whether it was waited for.

        Raises:
            BadRequest: It takes too long, or is malformed.
            HTTPRequestEntityTooLarge: It is too large.
        """
        if not request.body_exists:
            return False
        try:
            if request.content.is_eof():
                await request.read()
                return False
            with anyio.fail_after(self._settings.body_seconds), self._connections.waiting(request):
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
        return True

    def _admit(self, request: web.Request, share_key: str) -> None:
        """Check a request that ingests events against back-pressure and its fair share.

        Raises:
            BadRequest: It is refused for now (429).
        """
        connection = self._connections.of(request)
        self._backpressure.events_came.set()
        refusal = self._backpressure.refusal
        if refusal is not None:
            self._refuse(connection, refusal.reason, refusal.retry_seconds)
        if not self._shares.has_room(share_key):
            reason = "this sender has more requests in progress than its share: send fewer at once"
            self._refuse(connection, reason, 1)
        connection.refusals = 0

    @staticmethod
    def _refuse(connection: ClientConnection, reason: str, retry_seconds: int) -> NoReturn:
        connection.refusals += 1
        if connection.refusals > PATIENCE:
            connection.pause_reading(PAUSE_SECONDS)
        raise BadRequest(reason, status=429, headers={"Retry-After": str(retry_seconds)})

    def _webhook(self, request: web.Request) -> WebhookState | None:
        """Return the webhook that a request is sent to, if it is a known one."""
        name = request.match_info.get("name")
        try:
            return None if name is None else self._webhooks.get(name)
        except (NotFound, StoreUnavailable):
            return None

    @staticmethod
    def _share_key(request: web.Request, webhook: WebhookState | None) -> str:
        """Return the key of a request's share: its webhook, its token, or else its address."""
        if webhook is not None:
            return f"hook:{webhook.spec.name}"
        if "name" in request.match_info:
            # One key for all of them: with a key for each name, invented names would get shares.
            return _UNKNOWN_WEBHOOK
        credentials = request.headers.get(hdrs.AUTHORIZATION)
        if credentials is not None:
            # Not checked yet, so of any bytes; hashed, so that no secret stays in memory.
            data = credentials.encode(errors="surrogateescape")
            return f"token:{blake2b(data, digest_size=16).hexdigest()}"
        return f"peer:{request.remote}"

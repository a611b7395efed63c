"""Routes of webhooks: requests of other systems become dataset events."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address

import structlog
from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import page_by_name, read_cursor
from pubsubflow.api.http.problems import FORWARDED, BadRequest, check_host, check_origin
from pubsubflow.api.http.requests import PageQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, MediaBody, Route
from pubsubflow.api.http.shown import shown_items
from pubsubflow.api.webhook_cache import WebhookCache, WebhookState
from pubsubflow.errors import DefinitionError, InvalidInput, StoreUnavailable
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.webhooks import WebhookReply, WebhookView
from pubsubflow.model.recent import Recent
from pubsubflow.model.webhooks import Basic, Bearer, Unverified
from pubsubflow.model.wire.commands import (
    CommandHandler,
    RecordedEvent,
    RecordEvents,
    StoreDeadLetter,
)
from pubsubflow.webhooks.mapping import Filtered, challenge_reply, decide, delivery_id
from pubsubflow.webhooks.parse import (
    ParsedRequest,
    decode_kept,
    encode_kept,
    parse_head,
    parse_request,
)
from pubsubflow.webhooks.plugin_check import PluginCheck
from pubsubflow.webhooks.request import NotVerified, WebhookRequest

log = structlog.get_logger(__name__)

DEAD_LETTER_KIND = "hook"
_LIST = "hooks"
_SENT = MediaBody(
    ("*/*",),
    "The sender's request, byte for byte, as signatures cover it. The webhook's verifier defines "
    "which headers prove its origin; its `when`, `extra`, `partition` and `id` make the event of "
    "it. The query string is part of the request.",
)
_CHALLENGES = {Basic: 'Basic realm="webhook", charset="UTF-8"', Bearer: "Bearer"}
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}\Z")
_MAX_REMEMBERED = 10_000


class WebhookRoutes:
    """Handlers of `/hooks` and `/api/v1/hooks`.

    Args:
        commands: Records events and dead letters.
        webhooks: The webhooks in force.
        now: Returns the current time.
    """

    def __init__(
        self,
        commands: CommandHandler,
        webhooks: WebhookCache,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._commands = commands
        self._webhooks = webhooks
        self._now = now
        self._kept: Recent[tuple[str, str | None, str], bool] = Recent(_MAX_REMEMBERED)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        path = "/hooks/{name}"
        yield routing.post(
            path,
            self.receive,
            access=Access.OPEN,
            body=_SENT,
            responses={200: WebhookReply, 202: WebhookReply},
            problems=(401,),
            ingests_events=True,
        )
        yield Route(
            method="OPTIONS",
            path=path,
            handler=self.allow,
            access=Access.OPEN,
            responses={200: None},
            headers={
                "WebHook-Request-Origin": "The host that wants to send CloudEvents.",
                "WebHook-Request-Rate": "How many requests a minute it wants to send.",
            },
        )
        yield routing.get(
            "/api/v1/hooks",
            self.list_hooks,
            query=PageQuery,
            responses={200: Page[WebhookView]},
            etag=True,
        )

    async def receive(self, request: web.Request) -> web.Response:
        """Receive a request: 202 for a new event, 200 for a duplicate or for no event.

        A verified request that cannot become an event is kept as a dead letter, and answered by
        422.
        """
        webhook = self._webhooks.get(request.match_info["name"])
        webhook.record_arrival(self._now())
        try:
            raw = await self._verified(request, webhook)
        except (InvalidInput, web.HTTPException) as error:
            reason = error.reason if isinstance(error, web.HTTPException) else str(error)
            webhook.record_refusal(reason, self._now())
            log.info("webhook.request_refused", webhook=webhook.spec.name, reason=reason)
            raise
        parsed: ParsedRequest | None = None
        try:
            parsed = parse_request(raw)
            return await self._respond(webhook, parsed)
        except (InvalidInput, DefinitionError) as error:
            await self._keep(webhook, raw, parsed, str(error))
            raise BadRequest(
                f"the request to webhook {webhook.spec.name} is verified, but cannot become an "
                f"event, so it is kept as a dead letter: {error}"
            ) from error

    async def allow(self, request: web.Request) -> web.Response:
        """Allow a sender of CloudEvents to send (CloudEvents' HTTP 1.1 Web Hooks, §4).

        Its requests are verified all the same.
        """
        webhook = self._webhooks.get(request.match_info["name"])
        self._check_unverified(request, webhook)
        headers = {"Allow": "POST, OPTIONS"}
        origin = request.headers.get("WebHook-Request-Origin")
        if origin is not None:
            if not _ORIGIN.match(origin):
                raise BadRequest("WebHook-Request-Origin must be the name of a host", status=400)
            rate = request.headers.get("WebHook-Request-Rate", "*")
            headers["WebHook-Allowed-Origin"] = origin
            headers["WebHook-Allowed-Rate"] = rate if rate.isdecimal() else "*"
        return web.Response(status=200, headers=headers)

    async def list_hooks(self, request: web.Request) -> web.Response:
        """List webhooks by name, with the number of requests by outcome."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_LIST, params.after, str) or ""
        # Before the page is cut: its cursor names the last one.
        found = [view for view in shown_items(self._webhooks.views()) if view.name > after]
        return json_with_etag(request, page_by_name(_LIST, found, params.limit))

    def event_of_letter(self, payload: bytes, key: str) -> RecordEvents | None:
        """Return the event of a dead letter's request, by the webhook as it is now.

        Args:
            payload: The payload of the dead letter.
            key: The idempotency key if the request has none of its own.

        Raises:
            NotFound: The webhook does not exist any more.
            Unmappable: The request still cannot become an event.
        """
        name, parsed = decode_kept(payload)
        decided = decide(self._webhooks.get(name).spec, parsed)
        if isinstance(decided, Filtered):
            return None
        keys = tuple(each or key for each in decided.keys)
        return RecordEvents(decided.events, keys, decided.source)

    async def _verified(self, request: web.Request, webhook: WebhookState) -> WebhookRequest:
        """Return a request, once its origin is verified.

        Raises:
            BadRequest: It is not verified, or cannot be read.
            StoreUnavailable: It cannot be verified now, because a secret is missing.
        """
        self._check_unverified(request, webhook)
        verify = webhook.verify
        if verify is None:
            raise StoreUnavailable(
                f"webhook {webhook.spec.name} cannot verify requests now: `pubsubflow hooks list` "
                "on its server says why"
            )
        raw = WebhookRequest(
            tuple((name.decode("latin-1").lower(), value) for name, value in request.raw_headers),
            await request.read(),
            tuple(request.query.items()),
        )
        try:
            now = self._now().timestamp()
            if isinstance(verify, PluginCheck):
                await verify.verify(raw, now)
            else:
                verify(raw, now)
        except NotVerified as error:
            challenge = _CHALLENGES.get(type(webhook.spec.verify))
            headers = {} if challenge is None else {"WWW-Authenticate": challenge}
            raise BadRequest(
                f"the request to webhook {webhook.spec.name} is not verified: {error}",
                status=401,
                headers=headers,
            ) from error
        return raw

    @staticmethod
    def _check_unverified(request: web.Request, webhook: WebhookState) -> None:
        """Check that an unverified webhook is used by programs on this machine only."""
        if not isinstance(webhook.spec.verify, Unverified):
            return
        # A browser on this machine has a local address too, whichever page makes it send this.
        check_origin(request.headers)
        check_host(request.headers)
        peer = request.transport.get_extra_info("peername") if request.transport else None
        if not _is_local_peer(peer) or any(name in request.headers for name in FORWARDED):
            raise BadRequest(
                f"webhook {webhook.spec.name} is unverified, so it accepts requests of this "
                "machine only, and none through a proxy",
                status=403,
            )

    async def _respond(self, webhook: WebhookState, parsed: ParsedRequest) -> web.Response:
        reply = challenge_reply(webhook.spec.verify, parsed)
        if reply is not None:
            webhook.count("filtered")
            return json_response(WebhookReply(status="pong", challenge=reply.challenge))
        decided = decide(webhook.spec, parsed)
        if isinstance(decided, Filtered):
            webhook.count("filtered")
            return json_response(WebhookReply(status="filtered", reason=decided.reason))
        recorded: list[RecordedEvent] = await self._commands.execute(decided)
        event_id = recorded[0].event_id
        if recorded[0].duplicate:
            webhook.count("duplicates")
            return json_response(WebhookReply(status="duplicate", event_id=event_id))
        webhook.count("accepted")
        return json_response(
            WebhookReply(status="accepted", event_id=event_id), HTTPStatus.ACCEPTED
        )

    async def _keep(
        self,
        webhook: WebhookState,
        raw: WebhookRequest,
        parsed: ParsedRequest | None,
        reason: str,
    ) -> None:
        """Keep a request as a dead letter, once for all attempts of its sender."""
        webhook.count("dead")
        name = webhook.spec.name
        log.warning("webhook.request_dead_lettered", webhook=name, reason=reason)
        # Senders repeat what was answered by 422. Without an id every repetition is kept.
        sent_id = delivery_id(webhook.spec.verify, parsed or parse_head(raw))
        known = (name, sent_id, reason)
        if sent_id is not None and self._kept.get(known):
            return
        payload = encode_kept(name, raw, parsed=parsed)
        await self._commands.execute(
            StoreDeadLetter(DEAD_LETTER_KIND, f"webhook {name}", payload, reason)
        )
        self._kept.put(known, True)  # noqa: FBT003 - a value of a mapping


def _is_local_peer(peer: object) -> bool:
    """Whether the address of a socket is a loopback address."""
    if not isinstance(peer, tuple):
        return False
    address = ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback

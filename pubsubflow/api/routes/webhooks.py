"""Webhooks: requests from other systems become events."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address

import structlog
from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.pagination import opened, sealed
from pubsubflow.api.http.problems import FORWARDED, BadRequest, check_name, check_origin
from pubsubflow.api.http.requests import PageQuery, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Media, Route
from pubsubflow.api.webhook_cache import Door, Doors
from pubsubflow.errors import DefinitionError, InvalidInput, StoreUnavailable
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.webhooks import HookAnswer, HookView
from pubsubflow.model.webhooks import Basic, Bearer, Unverified
from pubsubflow.model.wire.commands import Calls, KeepLetter, PostEvents, Recorded
from pubsubflow.webhooks.mapping import Filtered, decide, greets, sent_mark
from pubsubflow.webhooks.parse import Told, frame, keep, read, read_kept
from pubsubflow.webhooks.request import Delivery, NotVerified

log = structlog.get_logger(__name__)

LETTER = "hook"
_LIST = "hooks"
_SENT = Media(
    ("*/*",),
    "What the sender sends, as it is: its signature is over these bytes. The webhook's verifier "
    "says which headers prove who it is, its `when`, `extra`, `partition` and `id` what becomes "
    "of it. A query string is part of it.",
)
_CHALLENGES = {Basic: 'Basic realm="webhook", charset="UTF-8"', Bearer: "Bearer"}
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}\Z")
_REMEMBERED = 10_000


class Hooks:
    """Handlers of `/hooks` and `/api/v1/hooks`.

    Args:
        calls: Records events.
        doors: The webhooks in force.
        now: The time.
    """

    def __init__(
        self,
        calls: Calls,
        doors: Doors,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._calls = calls
        self._doors = doors
        self._now = now
        self._kept: OrderedDict[tuple[str, str | None, str], None] = OrderedDict()

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        path = "/hooks/{name}"
        yield routing.post(
            path,
            self.receive,
            access=Access.OPEN,
            body=_SENT,
            answers={200: HookAnswer, 202: HookAnswer},
            problems=(401,),
            intake=True,
        )
        yield Route(
            method="OPTIONS",
            path=path,
            handler=self.allow,
            access=Access.OPEN,
            answers={200: None},
            headers={
                "WebHook-Request-Origin": "The host that wants to send CloudEvents.",
                "WebHook-Request-Rate": "How many requests a minute it wants to send.",
            },
        )
        yield routing.get(
            "/api/v1/hooks",
            self.list_hooks,
            query=PageQuery,
            answers={200: Page[HookView]},
            tagged=True,
        )

    async def receive(self, request: web.Request) -> web.Response:
        """Take a request in: 202 for a new event, 200 for one that was known, or for none.

        What is believed and cannot become an event is kept as a dead letter, and answered by 422.
        """
        door = self._doors.get(request.match_info["name"])
        door.arrived(self._now())
        try:
            delivery = await self._believed(request, door)
        except (InvalidInput, web.HTTPException) as error:
            reason = error.reason if isinstance(error, web.HTTPException) else str(error)
            door.refused(reason, self._now())
            log.info("hook.refused", hook=door.spec.name, reason=reason)
            raise
        told: Told | None = None
        try:
            told = read(delivery)
            return await self._answer(door, told)
        except (InvalidInput, DefinitionError) as error:
            await self._keep(door, delivery, told, str(error))
            raise BadRequest(
                f"webhook {door.spec.name} believes this, but it cannot become an event, so it is "
                f"kept as a dead letter: {error}"
            ) from error

    async def allow(self, request: web.Request) -> web.Response:
        """Let a sender of CloudEvents send here (CloudEvents' HTTP 1.1 Web Hooks, §4).

        Its requests have to be verified all the same.
        """
        door = self._doors.get(request.match_info["name"])
        self._check_near(request, door)
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
        """List webhooks by name, with what came through each."""
        asked = query(request, PageQuery)
        after = opened(_LIST, asked.after, str) or ""
        found = [view for view in self._doors.views() if view.name > after]
        items = found[: asked.limit]
        page = Page(items, items[-1].name if len(found) > len(items) else None)
        return tagged(request, sealed(_LIST, page))

    def again(self, payload: bytes, key: str) -> PostEvents | None:
        """Return the event of a request that a dead letter holds, by the rules of today.

        Args:
            payload: What the dead letter holds.
            key: Makes it one event however often this is asked, if nothing else does.

        Raises:
            NotFound: The webhook is no more.
            Unmappable: It still cannot become an event.
        """
        name, told = read_kept(payload)
        decided = decide(self._doors.get(name).spec, told)
        if isinstance(decided, Filtered):
            return None
        keys = tuple(each or key for each in decided.keys)
        return PostEvents(decided.events, keys, decided.source)

    async def _believed(self, request: web.Request, door: Door) -> Delivery:
        """Return a request whose sender is believed.

        Raises:
            BadRequest: It is not, or it cannot be read.
            StoreUnavailable: Nobody can tell, as the secret is missing.
        """
        self._check_near(request, door)
        verify = door.verify
        if verify is None:
            raise StoreUnavailable(
                f"webhook {door.spec.name} cannot verify anything now: `pubsubflow hooks list` "
                "on its server says why"
            )
        delivery = Delivery(
            tuple((name.decode("latin-1").lower(), value) for name, value in request.raw_headers),
            await request.read(),
            tuple(request.query.items()),
        )
        try:
            verify(delivery, self._now().timestamp())
        except NotVerified as error:
            challenge = _CHALLENGES.get(type(door.spec.verify))
            headers = {} if challenge is None else {"WWW-Authenticate": challenge}
            raise BadRequest(
                f"webhook {door.spec.name} does not believe this: {error}",
                status=401,
                headers=headers,
            ) from error
        return delivery

    @staticmethod
    def _check_near(request: web.Request, door: Door) -> None:
        """Let nobody but programs on this machine use a webhook that verifies nothing."""
        if not isinstance(door.spec.verify, Unverified):
            return
        check_origin(request.headers)
        check_name(request.headers)
        peer = request.transport.get_extra_info("peername") if request.transport else None
        if not _is_near(peer) or any(name in request.headers for name in FORWARDED):
            raise BadRequest(
                f"webhook {door.spec.name} verifies nothing, so it takes requests of this machine "
                "only, and none through a proxy",
                status=403,
            )

    async def _answer(self, door: Door, told: Told) -> web.Response:
        pong = greets(door.spec.verify, told)
        if pong is not None:
            door.count("filtered")
            return answer(HookAnswer(status="pong", challenge=pong.challenge))
        decided = decide(door.spec, told)
        if isinstance(decided, Filtered):
            door.count("filtered")
            return answer(HookAnswer(status="filtered", reason=decided.reason))
        recorded: list[Recorded] = await self._calls.call(decided)
        event_id = str(recorded[0].event_id)
        if recorded[0].duplicate:
            door.count("duplicates")
            return answer(HookAnswer(status="duplicate", event_id=event_id))
        door.count("accepted")
        return answer(HookAnswer(status="accepted", event_id=event_id), HTTPStatus.ACCEPTED)

    async def _keep(self, door: Door, delivery: Delivery, told: Told | None, reason: str) -> None:
        """Keep a request as a dead letter, once however often its sender tries."""
        door.count("dead")
        name = door.spec.name
        log.warning("hook.dead_letter", hook=name, reason=reason)
        mark = sent_mark(door.spec.verify, told or frame(delivery))
        known = (name, mark, reason)
        if mark is not None and known in self._kept:
            return
        payload = keep(name, delivery, told=told)
        await self._calls.call(KeepLetter(LETTER, f"webhook {name}", payload, reason))
        self._kept[known] = None
        if len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)


def _is_near(peer: object) -> bool:
    """Whether an address of a socket is one of this machine."""
    if not isinstance(peer, tuple):
        return False
    address = ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback

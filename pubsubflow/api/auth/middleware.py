"""Lets in whoever a route is meant for, and keeps a record of what they change."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pubsubflow.api.auth.audit import Diary
from pubsubflow.api.auth.token_cache import Keys
from pubsubflow.api.http.problems import (
    FORWARDED,
    SIGNED,
    BadRequest,
    check_name,
    check_origin,
    problems,
)
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.auth import Asker, Role
from pubsubflow.redaction import masked
from pubsubflow.store.auth import Deed

log = structlog.get_logger(__name__)

NOBODY = "nobody"
ALLOWED: Mapping[Role, frozenset[Access]] = {
    Role.VIEWER: frozenset({Access.OPEN, Access.VIEWER}),
    Role.EMITTER: frozenset({Access.OPEN, Access.EMITTER}),
    Role.OPERATOR: frozenset({Access.OPEN, Access.VIEWER, Access.EMITTER, Access.OPERATOR}),
    Role.ADMIN: frozenset(Access),
}
"""What each role may ask."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKER = web.RequestKey("asker", Asker)
_ABOUT = web.RequestKey("about", str)
_CHALLENGE = 'Bearer realm="pubsubflow"'
_REFUSALS = (401, 403)


class Gate:
    """The middleware that every request passes.

    Args:
        routes: All that is served.
        keys: Knows who shows which token.
        diary: Keeps the record.
    """

    def __init__(self, routes: Iterable[Route], keys: Keys, diary: Diary) -> None:
        self._routes = {(route.method, route.path): route for route in routes}
        self._keys = keys
        self._diary = diary

    def middleware(self) -> Middleware:
        """Return it as aiohttp takes it."""

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._pass(request, handler)

        return gate

    async def _pass(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = self._route(request)
        if route is None or route.access is Access.OPEN:
            self._check_page(request)
            return await handler(request)
        try:
            asker = await self._admit(request, route)
        except BadRequest as refusal:
            await self._refused(request, route, refusal.status)
            raise
        with self._keys.serving(asker, request):
            if route.access is Access.EMITTER or route.method in _READS:
                return await self._unrecorded(request, route, handler)
            return await self._recorded(request, route, handler)

    def _route(self, request: web.Request) -> Route | None:
        """Return what is asked for; None for nothing that is served.

        Raises:
            KeyError: It is served and nobody said to whom.
        """
        match = request.match_info
        if match.http_exception is not None or match.route.resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._routes[method, match.route.resource.canonical]

    def _check_page(self, request: web.Request) -> None:
        """Keep pages of other sites out; a name other than ours, where no token tells who asks."""
        if request.path.startswith(SIGNED):
            return
        check_origin(request.headers)
        if not self._keys.needed:
            check_name(request.headers)

    async def _admit(self, request: web.Request, route: Route) -> Asker:
        """Return who asks.

        Raises:
            BadRequest: Nobody who may.
            StoreUnavailable: Nobody can tell.
        """
        shown = _shown(request.headers.get("Authorization"))
        asker = await self._keys.who(shown)
        if asker is None:
            raise _unknown(shown)
        self._check_page(request)  # only now it is known for sure whether a token is needed
        if not self._keys.needed:
            _check_direct(request)
        request[_ASKER] = asker
        if route.access not in ALLOWED[asker.role]:
            raise _insufficient(asker, route.access)
        return asker

    async def _unrecorded(
        self, request: web.Request, route: Route, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            if error.status in _REFUSALS:
                await self._refused(request, route, error.status)
            raise

    async def _recorded(
        self, request: web.Request, route: Route, handler: Handler
    ) -> web.StreamResponse:
        """Write down who asks for what before it is done, and how it ended after."""
        number = await self._diary.begin(_deed(request, route))
        response = await problems(request, handler)
        await self._diary.end(number, response.status, request.get(_ABOUT))
        return response

    async def _refused(self, request: web.Request, route: Route, status: int) -> None:
        if route.method not in _READS and status in _REFUSALS:
            await self._diary.refused(_deed(request, route, status))


def _check_direct(request: web.Request) -> None:
    """Let nobody in through a proxy where nobody shows a token: who comes so is anybody.

    Raises:
        BadRequest: A proxy sends this.
    """
    for name in FORWARDED:
        if name in request.headers:
            raise BadRequest(
                f"this comes through a proxy ({name}), and without tokens this server answers "
                "programs of its own machine alone: make one with `pubsubflow tokens create`",
                status=403,
            )


def asker(request: web.Request) -> Asker:
    """Return who asks."""
    return request[_ASKER]


def note_object(request: web.Request, text: str) -> None:
    """Say what a request is about, where its path does not, for the record."""
    request[_ABOUT] = text


def check_datasets(request: web.Request, uris: Iterable[str], field: str = "dataset") -> None:
    """Let an emitter post events of its datasets only.

    Args:
        request: Whose sender it is.
        uris: The dataset of each event, normalised.
        field: Where an event names its dataset.

    Raises:
        BadRequest: One of them is another; none is to be recorded then.
    """
    who = asker(request)
    for index, uri in enumerate(uris):
        if not who.may_post(uri):
            limits = ", ".join(who.datasets or ())
            raise BadRequest(
                f"token {who.name!r} may not post events of {uri}, only of {limits}",
                status=403,
                index=index,
                field=field,
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'},
            )


def remote(request: web.Request) -> str | None:
    """Return the address of who asks; through a proxy on this machine, as that tells it."""
    peer = request.remote
    if peer is None:
        return None
    told = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        if told and ip_address(peer.partition("%")[0]).is_loopback:
            return f"{ip_address(told)} via {peer}"
    except ValueError:
        return peer
    return peer


def _deed(request: web.Request, route: Route, status: int | None = None) -> Deed:
    who = request.get(_ASKER)
    return Deed(
        asker=who.name if who else NOBODY,
        token=who.token if who else None,
        remote=remote(request),
        action=f"{route.method} {route.path}",
        object=masked("/".join(request.match_info.values())) or None,
        status=status,
    )


def _shown(header: str | None) -> str | None:
    """Return the token of an Authorization header (RFC 6750 §2.1)."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _unknown(shown: str | None) -> BadRequest:
    if shown is None:
        return BadRequest(
            "this server asks for a token: send `Authorization: Bearer psf_…`, or set "
            "$PUBSUBFLOW_TOKEN; an admin makes one with `pubsubflow tokens create`",
            status=401,
            headers={"WWW-Authenticate": _CHALLENGE},
        )
    return BadRequest(
        "this token is unknown, has expired or was revoked: ask an admin for another",
        status=401,
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
    )


def _insufficient(who: Asker, access: Access) -> BadRequest:
    least = next(role for role in Role if access in ALLOWED[role])
    return BadRequest(
        f"this needs the role {least}; token {who.name!r} has the role {who.role}",
        status=403,
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{least}"'},
    )

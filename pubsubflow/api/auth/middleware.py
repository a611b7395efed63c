"""The auth middleware authorises every request and has changes recorded in the audit log."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.dag_tags import DagTags
from pubsubflow.api.auth.scopes import SCOPES, check_scope
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http.problems import (
    FORWARDED,
    SELF_AUTHENTICATED,
    BadRequest,
    check_host,
    check_origin,
    problem_middleware,
)
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import limit_to
from pubsubflow.errors import NotFound
from pubsubflow.model.auth import ANONYMOUS, Principal, Rights, Role
from pubsubflow.model.wire.audit_entries import AuditEntry, AuditNote
from pubsubflow.model.wire.commands import CommandHandler, StartRun
from pubsubflow.redaction import redact
from pubsubflow.store.read.read_models import ReadModels

log = structlog.get_logger(__name__)

ALLOWED: Mapping[Role, frozenset[Access]] = {
    Role.VIEWER: frozenset({Access.OPEN, Access.ANY, Access.VIEWER}),
    Role.EMITTER: frozenset({Access.OPEN, Access.ANY, Access.EMITTER}),
    Role.OPERATOR: frozenset(Access) - {Access.ADMIN},
    Role.ADMIN: frozenset(Access),
}
"""The access that each role has."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
PRINCIPAL = web.RequestKey("principal", Principal)
"""The principal that the middleware authenticated."""

_OBJECT = web.RequestKey("object", str)
_PATTERN = re.compile(r"\{(\w+):[^}]*\}")
_NOTE = web.RequestKey("note", AuditNote)
_NUMBER = web.RequestKey("audit", int)
_CHALLENGE = 'Bearer realm="pubsubflow"'
_REFUSALS = (401, 403)
_LEAST = {Access.VIEWER: Role.VIEWER, Access.OPERATOR: Role.OPERATOR, Access.ADMIN: Role.ADMIN}


class AuthMiddleware:
    """Authenticates and authorises requests by the access that their route declares.

    Args:
        routes: All routes of the server.
        tokens: Authenticates tokens.
        audit: Records changes and refusals.
        tags: The tags of all DAGs.
        read_models: Reads which DAG a run is of.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        tokens: TokenCache,
        audit: AuditRecorder,
        tags: DagTags,
        read_models: ReadModels,
    ) -> None:
        # aiohttp names a resource without the patterns of its parameters.
        self._routes = {
            (route.method, _PATTERN.sub(r"{\1}", route.path)): route for route in routes
        }
        self._tokens = tokens
        self._audit = audit
        self._tags = tags
        self._read_models = read_models

    def middleware(self) -> Middleware:
        """Return it in aiohttp's form."""

        @web.middleware
        async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._handle(request, handler)

        return authorized

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = self._route(request)
        if route is None or route.access is Access.OPEN:
            self._check_origin(request)
            return await handler(request)
        try:
            principal = await self._authenticate(request)
            rights = await self._rights(request, route, principal)
        except BadRequest as refusal:
            await self._record_refusal(request, route, refusal.status)
            raise
        except NotFound:
            # Of what may not be seen, too: the attempt is recorded, the answer does not tell.
            await self._record_refusal(request, route, _REFUSALS[1])
            raise
        if rights is not None:
            limit_to(rights)
        # Posted events are not recorded one by one: the event log itself keeps them.
        unrecorded = route.access is Access.EMITTER or route.only_reads
        serve = self._unrecorded if unrecorded or route.method in _READS else self._recorded
        if principal.token is None and principal.session is None:
            return await serve(request, route, handler)
        with self._tokens.serving(principal, request):
            return await serve(request, route, handler)

    def _route(self, request: web.Request) -> Route | None:
        """Return the route of a request; None if no route matches.

        Raises:
            KeyError: A resource is served whose route was not declared here.
        """
        match = request.match_info
        if match.http_exception is not None or match.route.resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._routes[method, match.route.resource.canonical]

    def _check_origin(self, request: web.Request, *, cookie: bool = False) -> None:
        """Refuse pages of other sites, and without tokens host names that are not local."""
        if request.path.startswith(SELF_AUTHENTICATED):
            return
        check_origin(request.headers, request.method, cookie=cookie)
        if not self._tokens.required:
            check_host(request.headers)

    async def _authenticate(self, request: web.Request) -> Principal:
        """Return the principal of a request.

        Raises:
            BadRequest: It has no valid token, or comes from a page of another site.
            StoreUnavailable: Tokens cannot be checked.
        """
        secret = _bearer_token(request.headers.get(hdrs.AUTHORIZATION))
        cookie = None
        if secret is None and hdrs.COOKIE in request.headers:
            cookie = request.cookies.get(session_cookie(request))
        principal = await self._tokens.authenticate(secret, cookie)
        if principal is None:
            if cookie is not None:
                raise _session_ended(session_cookie(request))
            raise _unauthenticated(secret)
        # After authenticating, which may read the tokens: before, `required` may be out of date.
        self._check_origin(request, cookie=principal.session is not None)
        if not self._tokens.required:
            _check_direct(request)
        request[PRINCIPAL] = principal
        return principal

    async def _rights(
        self, request: web.Request, route: Route, principal: Principal
    ) -> Rights | None:
        """Return the rights by which a request is bounded; None if its role is enough.

        Raises:
            BadRequest: Neither its role nor its grants suffice (403).
            NotFound: It names what its grants do not show.
            StoreUnavailable: It cannot be decided.
        """
        if route.access in ALLOWED[principal.role]:
            return None
        scope = SCOPES.get((route.method, route.path))
        if scope is None or not principal.grants:
            raise _forbidden(principal, route.access)
        await self._tags.ready(request.match_info.get("dag_id"))
        rights = Rights(principal.role, principal.grants, self._tags.of, self._tags.names)
        role = _LEAST.get(route.access, Role.VIEWER)
        await check_scope(request, scope, role, rights, self._read_models)
        return rights

    async def _unrecorded(
        self, request: web.Request, route: Route, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            if error.status in _REFUSALS:
                await self._record_refusal(request, route, error.status)
            raise

    async def _recorded(
        self, request: web.Request, route: Route, handler: Handler
    ) -> web.StreamResponse:
        """Record a change before it is carried out, or with it, and its status after."""
        entry = _audit_entry(request, route)
        number = None
        if route.audit_in_command:
            request[_NOTE] = AuditNote(entry)
        else:
            number = await self._audit.begin(entry)
        # Errors become a response here, below the outer problem middleware: the entry needs its
        # status.
        response = await problem_middleware(request, handler)
        number = request.get(_NUMBER, number)
        if number is None:  # its command was refused
            await self._audit.begin(msgspec.structs.replace(entry, status=response.status))
        else:
            await self._audit.end(number, response.status, request.get(_OBJECT))
        return response

    async def _record_refusal(self, request: web.Request, route: Route, status: int) -> None:
        if route.method not in _READS and status in _REFUSALS:
            await self._audit.record_refusal(_audit_entry(request, route, status))


def _check_direct(request: web.Request) -> None:
    """Refuse requests through a proxy; call it where no token is required.

    Every client of a proxy on this machine has a loopback address, so the address proves nothing.

    Raises:
        BadRequest: The request came through a proxy.
    """
    for name in FORWARDED:
        if name in request.headers:
            raise BadRequest(
                f"this comes through a proxy ({name}), and without tokens this server answers "
                "programs of its own machine alone: make one with `pubsubflow tokens create`",
                status=403,
            )


def note_object(request: web.Request, text: str) -> None:
    """Name the object of a request for the audit log, where the path does not."""
    request[_OBJECT] = text


async def execute_audited(request: web.Request, command: StartRun, commands: CommandHandler) -> str:
    """Carry out the command of a request with its audit entry, in one transaction.

    Returns:
        The answer.
    """
    note = request[_NOTE]
    answer: str = await commands.execute(msgspec.structs.replace(command, audit=note))
    if note.number is not None:
        request[_NUMBER] = note.number
    return answer


def check_datasets(principal: Principal, uris: Iterable[str], field: str = "dataset") -> None:
    """Refuse events of datasets that an emitter may not post.

    Args:
        principal: Posts the events.
        uris: The dataset of each event, normalised.
        field: The field in which an event names its dataset.

    Raises:
        BadRequest: The principal may not post one of them; none is to be recorded then.
    """
    for index, uri in enumerate(uris):
        if not principal.may_post(uri):
            limits = ", ".join(principal.postable or ())
            raise BadRequest(
                f"token {principal.name!r} may not post events of {uri}, only of {limits}",
                status=403,
                index=index,
                field=field,
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'},
            )


def remote(request: web.Request) -> str | None:
    """Return the client's address; behind a proxy on this machine, the one that it forwards."""
    peer = request.remote
    if peer is None:
        return None
    # The last entry is the one that this machine's proxy added; those before it are the client's.
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        if forwarded and ip_address(peer.partition("%")[0]).is_loopback:
            return f"{ip_address(forwarded)} via {peer}"
    except ValueError:
        return peer
    return peer


def _audit_entry(request: web.Request, route: Route, status: int | None = None) -> AuditEntry:
    principal = request.get(PRINCIPAL)
    return AuditEntry(
        principal=principal.name if principal else ANONYMOUS,
        token=principal.token if principal else None,
        remote=remote(request),
        action=f"{route.method} {route.path}",
        object=redact("/".join(request.match_info.values())) or None,
        status=status,
    )


def _bearer_token(header: str | None) -> str | None:
    """Return the token of an Authorization header (RFC 6750 §2.1)."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def session_cookie(request: web.Request) -> str:
    """Return the name of the cookie with a browser's session.

    Browsers send a cookie to every port of a host, so its name has the port: two daemons on one
    machine do not overwrite each other's.
    """
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"psf-session-{port}" if port.isascii() and port.isdigit() else "psf-session"


def set_session_cookie(
    request: web.Request, response: web.Response, secret: str, *, seconds: float, secure: bool
) -> None:
    """Give a browser its session, which no script can read and no other site's page can send.

    Args:
        request: By whose host the cookie is named.
        response: Carries it.
        secret: The secret of the session.
        seconds: How long it lasts.
        secure: Whether the browser may send it over TLS alone.
    """
    response.set_cookie(
        session_cookie(request),
        secret,
        max_age=int(seconds),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=secure,
    )


def is_over_tls(request: web.Request, *, tls: bool) -> bool:
    """Whether a request came over TLS, to this server with `tls` or to a proxy in front."""
    # A proxy with TLS in front says so; a client that claims it harms itself alone.
    return tls or request.headers.get("X-Forwarded-Proto") == "https"


def _session_ended(name: str) -> BadRequest:
    return BadRequest(
        "this session has ended: sign in again",
        status=401,
        headers={
            "WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"',
            # The browser forgets it: an unknown cookie costs a look into the database.
            "Set-Cookie": f"{name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict",
        },
    )


def _unauthenticated(secret: str | None) -> BadRequest:
    if secret is None:
        return BadRequest(
            "this server requires a token: send `Authorization: Bearer psf_…`, or set "
            "$PUBSUBFLOW_TOKEN; an admin creates one with `pubsubflow tokens create`",
            status=401,
            headers={"WWW-Authenticate": _CHALLENGE},
        )
    return BadRequest(
        "this token is unknown, has expired or was revoked: get another from an admin",
        status=401,
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
    )


def _forbidden(principal: Principal, access: Access) -> BadRequest:
    least = next(role for role in Role if access in ALLOWED[role])
    on = " on everything" if principal.grants else ""
    return BadRequest(
        f"this needs the role {least}{on}; token {principal.name!r} has the role {principal.role}",
        status=403,
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{least}"'},
    )

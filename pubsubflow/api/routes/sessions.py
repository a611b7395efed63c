"""Routes by which browsers sign in to the page and out, and that name the principal.

A page cannot keep a token safely, and the live stream of a browser sends no header. So a browser
shows a token once, or follows a link that works once, and gets a cookie that no script can read.
"""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.dag_tags import DagTags
from pubsubflow.api.auth.middleware import (
    PRINCIPAL,
    is_over_tls,
    note_object,
    remote,
    session_cookie,
    set_session_cookie,
)
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.settings import ApiSettings
from pubsubflow.errors import NotFound
from pubsubflow.model.api.auth import MeView, SessionView, SignedOut, SignInLink
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import ANONYMOUS, Principal, Rights, Role, Session, name_of_owner
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.model.wire.protocol import VERSION
from pubsubflow.store.auth import SessionStore

LINK_SECONDS = 300.0
"""How long a link by which a browser signs in may be followed."""

_SIGN_IN = "POST /api/v1/session"
_SESSIONS = "sessions"
_MAX_SIGN_INS = 4
"""How many look into the database at once: anybody may try."""


class SignInRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to sign in: one of the two.

    Attributes:
        token: A token.
        code: The code of a link.
    """

    token: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    code: Annotated[str, Meta(min_length=1, max_length=500)] | None = None


class SignInLinkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a link.

    Attributes:
        person: Who will follow it, such as the name of an account; only without a token, whose
            name counts otherwise.
    """

    person: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class MeQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of who one is.

    Attributes:
        dag: Return the role on this DAG.
    """

    dag: Annotated[str, Meta(min_length=1, max_length=512)] | None = None


class SessionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of sessions."""

    limit: Limit = 50
    after: Cursor | None = None


_sign_in_decoder = msgspec.json.Decoder(SignInRequest)
_link_decoder = msgspec.json.Decoder(SignInLinkRequest)


class SessionRoutes:
    """Handlers of `/api/v1/me` and `/api/v1/session`.

    Args:
        sessions: The stored sessions.
        token_cache: The live tokens and sessions; it announces changes.
        audit: Records who signs in.
        settings: How long a session lasts.
        tags: The tags of all DAGs.
        sign_out_url: Returns where a person signs out at the provider, too.
    """

    def __init__(
        self,
        sessions: SessionStore,
        token_cache: TokenCache,
        audit: AuditRecorder,
        settings: ApiSettings,
        tags: DagTags,
        sign_out_url: Callable[[web.Request], Awaitable[str | None]],
    ) -> None:
        self._sessions = sessions
        self._token_cache = token_cache
        self._audit = audit
        self._tags = tags
        self._sign_out_url = sign_out_url
        self._seconds = settings.session_seconds
        self._tls = settings.tls_cert is not None
        self._limit = anyio.Semaphore(_MAX_SIGN_INS)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/me", self.me, access=Access.ANY, query=MeQuery, responses={200: MeView}
        )
        yield routing.post(
            "/api/v1/session",
            self.sign_in,
            access=Access.OPEN,
            query=NoQuery,
            body=SignInRequest,
            responses={201: MeView},
            problems=(401,),
        )
        yield Route(
            method="DELETE",
            path="/api/v1/session",
            handler=self.sign_out,
            access=Access.ANY,
            query=NoQuery,
            responses={200: SignedOut, 204: None},
        )
        yield routing.post(
            "/api/v1/session/links",
            self.create_link,
            access=Access.ANY,
            query=NoQuery,
            body=SignInLinkRequest,
            responses={201: SignInLink},
        )
        yield routing.get(
            "/api/v1/sessions",
            self.list_sessions,
            access=Access.ANY,
            query=SessionsQuery,
            responses={200: Page[SessionView]},
        )
        yield Route(
            method="DELETE",
            path="/api/v1/sessions/{id}",
            handler=self.revoke,
            access=Access.ANY,
            query=NoQuery,
            responses={200: SessionView},
            names={"id": Annotated[UUID, Meta(description="Id of the session.")]},
        )

    async def me(self, request: web.Request) -> web.Response:
        """Return the name of the principal, and what it may do."""
        principal, dag_id = request[PRINCIPAL], parse_query(request, MeQuery).dag
        view = self._view(principal)
        if dag_id is not None and principal.grants:
            await self._tags.ready(dag_id)
            rights = Rights(principal.role, principal.grants, self._tags.of, self._tags.names)
            view = msgspec.structs.replace(view, role=rights.role_on_dag(dag_id))
        response = json_response(view)
        cookie = session_cookie(request)
        if principal.session is None and cookie in request.cookies:
            self._forget(response, cookie)
        return response

    async def sign_in(self, request: web.Request) -> web.Response:
        """Sign a browser in by a token or a link's code: it gets a cookie."""
        payload = await parse_body(request, _sign_in_decoder)
        if (payload.token is None) == (payload.code is None):
            raise BadRequest("send a token or a link's code: one of the two")
        agent, address = request.headers.get(hdrs.USER_AGENT), remote(request)
        async with self._limit:
            made = await self._session_for(payload, agent, address)
        if made is None:
            entry = AuditEntry(principal=ANONYMOUS, remote=address, action=_SIGN_IN, status=401)
            await self._audit.record_refusal(entry)
            raise BadRequest(_refusal(payload), status=HTTPStatus.UNAUTHORIZED)
        return await self._signed_in(request, *made)

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session of the browser that sends this.

        200 with the address at which a person signs out at the provider too, if it has one.
        """
        principal = request[PRINCIPAL]
        url = await self._sign_out_url(request) if principal.person else None
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        if url is not None:
            response = json_response(SignedOut(url=url))
        if principal.session is not None:
            note_object(request, str(principal.session))
            self._token_cache.exempt(request)
            await self._sessions.end(principal.session)
            await self._token_cache.announce_change()
        self._forget(response, session_cookie(request))
        return response

    async def create_link(self, request: web.Request) -> web.Response:
        """Make a link by which a browser signs in as this principal, once."""
        payload = await parse_body(request, _link_decoder)
        principal: Principal = request[PRINCIPAL]
        name = principal.name
        if principal.person:
            raise BadRequest("who signs in at a provider needs no link: sign in there", status=403)
        if principal.token is None and principal.session is None:
            name = name_of_owner(payload.person)
        elif payload.person is not None:
            raise BadRequest("only without a token is a person named", field="person")
        code, expires_at = await self._sessions.create_link(principal, name, seconds=LINK_SECONDS)
        note_object(request, name)
        link = SignInLink(name=name, path=f"/ui/#sign-in={code}", expires_at=expires_at)
        return json_response(link, status=201)

    async def list_sessions(self, request: web.Request) -> web.Response:
        """List browsers that have signed in, the newest first: for admins all, else the own."""
        params = parse_query(request, SessionsQuery)
        after = read_cursor(_SESSIONS, params.after, UUID)
        token, person = _limits_of(request[PRINCIPAL])
        page = await self._sessions.page(
            limit=params.limit, after=after, token=token, person=person
        )
        return json_response(with_cursor(_SESSIONS, page))

    async def revoke(self, request: web.Request) -> web.Response:
        """End a session: admins any, else one of the own."""
        text = request.match_info["id"]
        try:
            number = UUID(text)
        except ValueError:
            raise NotFound("session", text) from None
        self._token_cache.exempt(request)
        token, person = _limits_of(request[PRINCIPAL])
        ended = await self._sessions.end(number, token=token, person=person)
        note_object(request, ended.name)
        await self._token_cache.announce_change()
        return json_response(ended)

    async def _session_for(
        self, payload: SignInRequest, agent: str | None, address: str | None
    ) -> tuple[Session, str] | None:
        """Return a new session and its cookie; None if what was sent proves nothing."""
        if payload.code is not None:
            return await self._sessions.follow_link(
                payload.code, seconds=self._seconds, agent=agent, remote=address
            )
        principal = await self._principal_of(payload.token)
        if principal is None:
            return None
        return await self._sessions.create(
            principal, seconds=self._seconds, agent=agent, remote=address
        )

    async def _principal_of(self, token: str | None) -> Principal | None:
        """Return the principal of a token; None where any would do, as none is needed."""
        principal = await self._token_cache.authenticate(token)
        if principal is None or (principal.token is None and not principal.owner):
            return None
        return principal

    async def _signed_in(self, request: web.Request, session: Session, secret: str) -> web.Response:
        number = await self._audit.begin(
            AuditEntry(
                principal=session.name,
                token=session.token,
                remote=remote(request),
                action=_SIGN_IN,
                object=str(session.id),
            )
        )
        await self._token_cache.announce_change()
        principal = await self._token_cache.authenticate(None, secret)
        if principal is None or principal.session is None:
            await self._audit.end(number, HTTPStatus.UNAUTHORIZED, None)
            raise BadRequest("the token of this link was revoked", status=HTTPStatus.UNAUTHORIZED)
        await self._audit.end(number, HTTPStatus.CREATED, None)
        response = json_response(self._view(principal), status=201)
        secure = is_over_tls(request, tls=self._tls)
        set_session_cookie(request, response, secret, seconds=self._seconds, secure=secure)
        return response

    def _view(self, principal: Principal) -> MeView:
        expires_at = self._token_cache.expiry_of(principal)
        named = principal.token is not None or principal.owner
        return MeView(
            name=principal.name,
            role=principal.role,
            via="session" if principal.session else "token" if named else "none",
            datasets=principal.datasets,
            grants=tuple(map(str, principal.grants)),
            sign_in=self._token_cache.required,
            version=VERSION,
            session=None if principal.session is None else str(principal.session),
            expires_at=expires_at,
        )

    @staticmethod
    def _forget(response: web.Response, cookie: str) -> None:
        response.set_cookie(cookie, "", max_age=0, path="/", httponly=True, samesite="Strict")


def _limits_of(principal: Principal) -> tuple[UUID | None, str | None]:
    """Return the token, or the person, whose sessions a principal may see; None for all."""
    if principal.role is Role.ADMIN:
        return None, None
    return principal.token, principal.name if principal.person else None


def _refusal(payload: SignInRequest) -> str:
    if payload.code is not None:
        return "this link was used, or has expired: make another with `pubsubflow open`"
    return "this token is unknown, has expired or was revoked: get another from an admin"

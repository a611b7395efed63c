"""Routes of tokens and of the audit log, for admins."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.middleware import PRINCIPAL, note_object
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.auth import AuditView, NewToken, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import MAX_GRANTS, Grant, Role
from pubsubflow.store.auth import TokenNameTaken, TokenStore

GrantText = Annotated[str, Meta(min_length=1, max_length=600)]


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to create a token.

    Attributes:
        name: For people; unique among tokens that are not revoked.
        role: What its holder may do.
        datasets: For an emitter: the datasets whose events it may post, or patterns of them.
        expires_at: When it expires; never if null.
        grants: Its roles on some DAGs and datasets, beside the role on everything: texts such as
            `operator:dag=sales_*`, `viewer:tag=team:sales` or `operator:dataset=s3://lake/**`.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role
    datasets: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    grants: Annotated[tuple[GrantText, ...], Meta(max_length=MAX_GRANTS)] = ()


class TokensQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of tokens."""

    limit: Limit = 50
    after: Cursor | None = None


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the audit log.

    Attributes:
        principal: Only entries of this principal.
    """

    limit: Limit = 50
    after: Cursor | None = None
    principal: str | None = field(name="asker", default=None)


_TOKENS, _AUDIT = "tokens", "audit"
_Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_ID = Annotated[str, Meta(min_length=1, description="Id of the token, or its name.")]
_token_decoder = msgspec.json.Decoder(TokenRequest)


class TokenRoutes:
    """Handlers of `/api/v1/tokens` and `/api/v1/audit`.

    Args:
        tokens: The stored tokens.
        audit: The audit log.
        token_cache: The live tokens; it announces changes.
    """

    def __init__(self, tokens: TokenStore, audit: AuditRecorder, token_cache: TokenCache) -> None:
        self._tokens = tokens
        self._audit = audit
        self._token_cache = token_cache

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/tokens",
            self.list_tokens,
            access=Access.ADMIN,
            query=TokensQuery,
            responses={200: Page[TokenView]},
        )
        yield routing.post(
            "/api/v1/tokens",
            self.create,
            access=Access.ADMIN,
            query=NoQuery,
            body=TokenRequest,
            responses={201: NewToken},
            problems=(409,),
        )
        yield Route(
            method="DELETE",
            path="/api/v1/tokens/{id}",
            handler=self.revoke,
            access=Access.ADMIN,
            query=NoQuery,
            responses={200: TokenView},
            names={"id": _ID},
        )
        yield routing.get(
            "/api/v1/audit",
            self.list_audit,
            access=Access.ADMIN,
            query=AuditQuery,
            responses={200: Page[AuditView]},
        )

    async def list_tokens(self, request: web.Request) -> web.Response:
        """List tokens, the newest first, also expired and revoked ones."""
        params = parse_query(request, TokensQuery)
        after = read_cursor(_TOKENS, params.after, UUID)
        return json_response(
            with_cursor(_TOKENS, await self._tokens.page(limit=params.limit, after=after))
        )

    async def create(self, request: web.Request) -> web.Response:
        """Create a token; only this response ever holds its text."""
        payload = await parse_body(request, _token_decoder)
        note_object(request, payload.name)
        try:
            made = await self._tokens.create(
                payload.name,
                payload.role,
                datasets=payload.datasets,
                grants=[Grant.parse(each) for each in payload.grants],
                expires_at=_future(payload.expires_at),
                by=request[PRINCIPAL].name,
            )
        except TokenNameTaken as error:
            raise BadRequest(str(error), status=409, field="name") from error
        await self._token_cache.announce_change()
        return json_response(made, status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke a token, by its id or name; return it."""
        self._token_cache.exempt(request)
        revoked = await self._tokens.revoke(request.match_info["id"])
        note_object(request, revoked.name)
        await self._token_cache.announce_change()
        return json_response(revoked)

    async def list_audit(self, request: web.Request) -> web.Response:
        """List changes and refused attempts, the newest first."""
        params = parse_query(request, AuditQuery)
        after = read_cursor(_AUDIT, params.after, _Number)
        page = await self._audit.page(limit=params.limit, after=after, principal=params.principal)
        return json_response(with_cursor(_AUDIT, page))


def _future(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    try:
        utc = time.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"{time} is out of range", field="expires_at") from None
    if utc <= datetime.now(UTC):
        raise BadRequest(f"{time} is in the past: set a later time", field="expires_at")
    return utc

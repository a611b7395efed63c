"""Tokens and the audit log: for admins."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import asker, note_object
from pubsubflow.api.auth.token_cache import Keys
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, body, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.auth import AuditView, NewToken, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role
from pubsubflow.store.auth import AuditLog, NameTaken, Tokens


class AskedToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a token.

    Attributes:
        name: For people; unique among tokens that are not revoked.
        role: What its holder may do.
        datasets: For an emitter: the datasets whose events it may post, or patterns of them.
        expires_at: When it expires; never if null.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role
    datasets: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class TokensQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of tokens."""

    limit: Limit = 50
    after: Cursor | None = None


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the audit log.

    Attributes:
        asker: Only what this one did.
    """

    limit: Limit = 50
    after: Cursor | None = None
    asker: str | None = None


_TOKENS, _AUDIT = "tokens", "audit"
_Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_ID = Annotated[str, Meta(min_length=1, description="Id of the token, or its name.")]
_asked_token = msgspec.json.Decoder(AskedToken)


class AccessRoutes:
    """Handlers of `/api/v1/tokens` and `/api/v1/audit`.

    Args:
        tokens: All tokens.
        audit: Who did what.
        keys: The tokens in force, to be told of changes.
    """

    def __init__(self, tokens: Tokens, audit: AuditLog, keys: Keys) -> None:
        self._tokens = tokens
        self._audit = audit
        self._keys = keys

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            "/api/v1/tokens",
            self.list_tokens,
            access=Access.ADMIN,
            query=TokensQuery,
            answers={200: Page[TokenView]},
        )
        yield routing.post(
            "/api/v1/tokens",
            self.create,
            access=Access.ADMIN,
            query=NoQuery,
            body=AskedToken,
            answers={201: NewToken},
            problems=(409,),
        )
        yield Route(
            method="DELETE",
            path="/api/v1/tokens/{id}",
            handler=self.revoke,
            access=Access.ADMIN,
            query=NoQuery,
            answers={200: TokenView},
            names={"id": _ID},
        )
        yield routing.get(
            "/api/v1/audit",
            self.list_audit,
            access=Access.ADMIN,
            query=AuditQuery,
            answers={200: Page[AuditView]},
        )

    async def list_tokens(self, request: web.Request) -> web.Response:
        """List tokens, the newest first, also those that count no more."""
        asked = query(request, TokensQuery)
        after = opened(_TOKENS, asked.after, UUID)
        return answer(sealed(_TOKENS, await self._tokens.page(limit=asked.limit, after=after)))

    async def create(self, request: web.Request) -> web.Response:
        """Make a token; only this answer ever holds its text."""
        query(request, NoQuery)
        asked = await body(request, _asked_token)
        note_object(request, asked.name)
        try:
            made = await self._tokens.create(
                asked.name,
                asked.role,
                datasets=asked.datasets,
                expires_at=_future(asked.expires_at),
                by=asker(request).name,
            )
        except NameTaken as error:
            raise BadRequest(str(error), status=409, field="name") from error
        await self._keys.changed()
        return answer(made, status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """Let a token count no more, by its id or name; answer with what it is now."""
        query(request, NoQuery)
        self._keys.spare(request)
        gone = await self._tokens.revoke(request.match_info["id"])
        note_object(request, gone.name)
        await self._keys.changed()
        return answer(gone)

    async def list_audit(self, request: web.Request) -> web.Response:
        """List who did what, and who was not let, the newest first."""
        asked = query(request, AuditQuery)
        after = opened(_AUDIT, asked.after, _Number)
        page = await self._audit.page(limit=asked.limit, after=after, asker=asked.asker)
        return answer(sealed(_AUDIT, page))


def _future(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    try:
        utc = time.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"{time} is out of range", field="expires_at") from None
    if utc <= datetime.now(UTC):
        raise BadRequest(f"a token that expired at {time} is of no use", field="expires_at")
    return utc

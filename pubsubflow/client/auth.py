"""Client methods for tokens, sessions and the audit log."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.resources import Page
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model import auth
    from pubsubflow.model.api import auth as views
else:
    views = lazy_module("pubsubflow.model.api.auth")
    auth = lazy_module("pubsubflow.model.auth")


class TokenApi:
    """Methods of the client for tokens, sessions and the audit log; most require an admin."""

    _server: Transport

    def tokens(self, *, limit: int | None = None) -> "AsyncIterator[views.TokenView]":
        """Yield tokens, the newest first, also expired and revoked ones."""
        return self._server.list("/api/v1/tokens", Page[views.TokenView], {}, limit)

    async def create_token(
        self,
        name: str,
        role: "auth.Role",
        *,
        datasets: Sequence[str] = (),
        grants: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> "views.NewToken":
        """Create a token; only the returned value ever holds its text.

        Args:
            name: For people; unique among tokens that are not revoked.
            role: What its holder may do.
            datasets: For an emitter: the datasets whose events it may post, or patterns of them.
            grants: Roles on some DAGs and datasets, such as `operator:dag=sales_*`.
            expires_at: When it expires, with a zone; never if None.
        """
        body = {"name": name, "role": role, "datasets": datasets, "expires_at": expires_at}
        if grants:
            body["grants"] = grants
        return await self._server.send("POST", "/api/v1/tokens", body, views.NewToken)

    async def revoke_token(self, name: str) -> "views.TokenView":
        """Revoke a token, by its name or id; return it."""
        return await self._server.send(
            "DELETE", f"/api/v1/tokens/{quoted(name)}", None, views.TokenView
        )

    async def me(self) -> "views.MeView":
        """Return who this client is, and what it may do; any role will do."""
        return await self._server.get("/api/v1/me", views.MeView)

    async def create_sign_in_link(self, person: str | None = None) -> "views.SignInLink":
        """Make a link by which a browser signs in to the page as this client, once.

        Args:
            person: Who will follow it; only without a token, whose name counts otherwise.
        """
        body = {"person": person}
        return await self._server.send("POST", "/api/v1/session/links", body, views.SignInLink)

    def sessions(self, *, limit: int | None = None) -> "AsyncIterator[views.SessionView]":
        """Yield browsers that have signed in, the newest first: for admins all, else the own."""
        return self._server.list("/api/v1/sessions", Page[views.SessionView], {}, limit)

    async def revoke_session(self, number: str) -> "views.SessionView":
        """End a session, by its id; return it."""
        path = f"/api/v1/sessions/{quoted(number)}"
        return await self._server.send("DELETE", path, None, views.SessionView)

    def audit(
        self, *, principal: str | None = None, limit: int | None = None
    ) -> "AsyncIterator[views.AuditView]":
        """Yield changes and refused attempts, the newest first.

        Args:
            principal: Only entries of this principal.
            limit: Number of entries at most; None for all.
        """
        return self._server.list(
            "/api/v1/audit", Page[views.AuditView], {"asker": principal}, limit
        )

"""Client methods for tokens and the audit log."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.auth import AuditView, NewToken, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role


class TokenApi:
    """Methods of the client for tokens and the audit log; they require the role `admin`."""

    _server: Transport

    def tokens(self, *, limit: int | None = None) -> AsyncIterator[TokenView]:
        """Yield tokens, the newest first, also expired and revoked ones."""
        return self._server.list("/api/v1/tokens", Page[TokenView], {}, limit)

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken:
        """Create a token; only the returned value ever holds its text.

        Args:
            name: For people; unique among tokens that are not revoked.
            role: What its holder may do.
            datasets: For an emitter: the datasets whose events it may post, or patterns of them.
            expires_at: When it expires, with a zone; never if None.
        """
        body = {"name": name, "role": role, "datasets": datasets, "expires_at": expires_at}
        return await self._server.send("POST", "/api/v1/tokens", body, NewToken)

    async def revoke_token(self, name: str) -> TokenView:
        """Revoke a token, by its name or id; return it."""
        return await self._server.send("DELETE", f"/api/v1/tokens/{quoted(name)}", None, TokenView)

    def audit(
        self, *, principal: str | None = None, limit: int | None = None
    ) -> AsyncIterator[AuditView]:
        """Yield changes and refused attempts, the newest first.

        Args:
            principal: Only entries of this principal.
            limit: Number of entries at most; None for all.
        """
        return self._server.list("/api/v1/audit", Page[AuditView], {"asker": principal}, limit)

"""Questions about who may ask, and who did what."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.auth import AuditView, NewToken, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import Role


class AccessCalls:
    """The part of a client that is about tokens and the audit log; for admins."""

    _server: Transport

    def tokens(self, *, limit: int | None = None) -> AsyncIterator[TokenView]:
        """Yield tokens, the newest first, also those that count no more."""
        return self._server.list("/api/v1/tokens", Page[TokenView], {}, limit)

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken:
        """Make a token; only the answer ever holds its text.

        Args:
            name: For people; unique among tokens that are not revoked.
            role: What its holder may do.
            datasets: For an emitter: the datasets whose events it may post, or patterns of them.
            expires_at: When it expires, with a zone; never if None.
        """
        asked = {"name": name, "role": role, "datasets": datasets, "expires_at": expires_at}
        return await self._server.send("POST", "/api/v1/tokens", asked, NewToken)

    async def revoke_token(self, name: str) -> TokenView:
        """Let a token count no more, by its name or id; return what it is then."""
        return await self._server.send("DELETE", f"/api/v1/tokens/{quoted(name)}", None, TokenView)

    def audit(
        self, *, asker: str | None = None, limit: int | None = None
    ) -> AsyncIterator[AuditView]:
        """Yield who did what, and who was not let, the newest first.

        Args:
            asker: Only what this one did.
            limit: Number at most; None for all.
        """
        return self._server.list("/api/v1/audit", Page[AuditView], {"asker": asker}, limit)

"""Client methods for pools and rate limits."""

from collections.abc import AsyncIterator

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import Page, PoolView, RateLimitView


class PoolApi:
    """Methods of the client for pools and rate limits."""

    _server: Transport

    def pools(self, *, limit: int | None = None) -> AsyncIterator[PoolView]:
        """Yield pools by name, also those that only tasks name."""
        return self._server.list("/api/v1/pools", Page[PoolView], {}, limit)

    def rate_limits(self, *, limit: int | None = None) -> AsyncIterator[RateLimitView]:
        """Yield rate limits by name."""
        return self._server.list("/api/v1/rate-limits", Page[RateLimitView], {}, limit)

    async def set_pool(self, name: str, slots: int, *, revision: str | None = None) -> PoolView:
        """Set how many tasks of a pool may run at once; return the pool.

        Args:
            name: The pool.
            slots: How many; with 0 none starts.
            revision: Only if its revision is still this one; RequestFailed (412) if not.
        """
        path = f"/api/v1/pools/{quoted(name)}"
        headers = if_match(revision)
        return await self._server.send(
            "PUT", path, {"slots": slots}, PoolView, headers=headers, idempotent=revision is None
        )

    async def remove_pool(self, name: str, *, revision: str | None = None) -> None:
        """Remove a pool's limit.

        Args:
            name: The pool.
            revision: As for `set_pool`.
        """
        await self._server.delete(f"/api/v1/pools/{quoted(name)}", headers=if_match(revision))

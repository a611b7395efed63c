"""Questions about pools."""

from collections.abc import AsyncIterator

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import Page, PoolView


class PoolCalls:
    """The part of a client that is about pools."""

    _server: Transport

    def pools(self, *, limit: int | None = None) -> AsyncIterator[PoolView]:
        """Yield pools by name, also those that tasks name and nobody has set."""
        return self._server.list("/api/v1/pools", Page[PoolView], {}, limit)

    async def set_pool(self, name: str, slots: int, *, revision: str | None = None) -> PoolView:
        """Let at most so many tasks of a pool run at once; return what it is now.

        Args:
            name: The pool.
            slots: How many; 0 lets none start.
            revision: Only if its revision is still this one; Failed (412) if not.
        """
        path = f"/api/v1/pools/{quoted(name)}"
        headers = if_match(revision)
        return await self._server.send(
            "PUT", path, {"slots": slots}, PoolView, headers=headers, again=revision is None
        )

    async def remove_pool(self, name: str, *, revision: str | None = None) -> None:
        """Take a pool's limit away.

        Args:
            name: The pool.
            revision: As for `set_pool`.
        """
        await self._server.delete(f"/api/v1/pools/{quoted(name)}", headers=if_match(revision))

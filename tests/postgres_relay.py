"""A relay in front of Postgres that breaks connections at chosen moments."""

from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from msgspec.structs import replace


class Relay:
    """Passes bytes on between clients and Postgres, both on unix sockets.

    Attributes:
        lose_commits: How many COMMITs to pass on and then to break their connection, so that the
            client never learns that they took effect.
        up: Whether new connections are let through.
        lost: COMMITs lost so far.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._scopes: set[anyio.CancelScope] = set()
        self.lose_commits = 0
        self.up = True
        self.lost = 0

    def cut(self) -> None:
        """Break all connections and let none through until `up` is set again."""
        self.up = False
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, path: Path, *, task_status) -> None:
        listener = await anyio.create_unix_listener(path)
        async with listener:
            task_status.started()
            await listener.serve(self._relay)

    async def _relay(self, client) -> None:
        async with client:
            if not self.up:
                return
            async with await anyio.connect_unix(self._target) as server:
                try:
                    async with anyio.create_task_group() as group:
                        self._scopes.add(group.cancel_scope)
                        link = _Link(self, client, server, group.cancel_scope)
                        group.start_soon(link.upward)
                        group.start_soon(link.downward)
                finally:
                    self._scopes.discard(group.cancel_scope)


class _Link:
    def __init__(self, relay: Relay, client, server, scope) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._scope = scope
        self._deaf = False

    async def upward(self) -> None:
        try:
            async for data in self._client:
                if b"COMMIT;" in data and self._relay.lose_commits:
                    self._relay.lose_commits -= 1
                    self._deaf = True
                await self._server.send(data)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass
        self._scope.cancel()

    async def downward(self) -> None:
        try:
            async for data in self._server:
                if self._deaf:
                    self._relay.lost += 1
                    break
                await self._client.send(data)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass
        self._scope.cancel()


@asynccontextmanager
async def relayed(address, folder: Path):
    """Give a relay in front of a PostgresAddress, and the address to reach it at."""
    name = f".s.PGSQL.{address.port}"
    relay = Relay(Path(address.host) / name)
    async with anyio.create_task_group() as group:
        await group.start(relay.serve, folder / name)
        try:
            yield relay, replace(address, host=str(folder))
        finally:
            group.cancel_scope.cancel()

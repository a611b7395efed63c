"""A relay in front of Postgres that breaks connections at chosen moments."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

_CHUNK = 65536


class Relay:
    """Passes bytes on between clients and Postgres, both on unix sockets.

    On asyncio's transports: anyio's unix sockets raise InvalidStateError in the event loop when a
    reader is cancelled in the loop's turn in which its bytes arrive.

    Attributes:
        lose_commits: How many COMMITs to pass on and then to break their connection, so that the
            client cannot know that they took effect.
        up: Whether new connections are accepted.
        lost: COMMITs lost so far.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._connections: set[_Connection] = set()
        self.lose_commits = 0
        self.up = True
        self.lost = 0

    def cut(self) -> None:
        """Break all connections and accept none until `up` is set again."""
        self.up = False
        for connection in self._connections:
            connection.cut()

    async def accept(self, reader, writer) -> None:
        if not self.up:
            writer.transport.abort()
            return
        connection = _Connection(
            self, (reader, writer), await asyncio.open_unix_connection(self._target)
        )
        self._connections.add(connection)
        if not self.up:
            connection.cut()
        try:
            await asyncio.gather(connection.upward(), connection.downward())
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(self, relay: Relay, client, server) -> None:
        self._relay = relay
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._dropping = False

    def cut(self) -> None:
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def upward(self) -> None:
        try:
            while data := await self._from_client.read(_CHUNK):
                if b"COMMIT;" in data and self._relay.lose_commits:
                    self._relay.lose_commits -= 1
                    self._dropping = True
                self._to_server.write(data)
                await self._to_server.drain()
        except ConnectionError:
            pass
        self.cut()

    async def downward(self) -> None:
        try:
            while data := await self._from_server.read(_CHUNK):
                if self._dropping:
                    self._relay.lost += 1
                    break
                self._to_client.write(data)
                await self._to_client.drain()
        except ConnectionError:
            pass
        self.cut()


@asynccontextmanager
async def relayed(address, folder: Path):
    """Run a relay in front of a PostgresAddress, and the address to reach it at."""
    name = f".s.PGSQL.{address.port}"
    relay = Relay(Path(address.host) / name)
    listening = await asyncio.start_unix_server(relay.accept, folder / name)
    try:
        yield relay, replace(address, host=str(folder))
    finally:
        listening.close()
        relay.cut()
        await listening.wait_closed()

"""Waiting for a port."""

from collections.abc import AsyncIterator
from datetime import timedelta
from socket import gaierror

import anyio
import msgspec

from pubsubflow.errors import DefinitionError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.checks import check_filled, check_interval

_PORTS = range(1, 65536)


class TcpPort(Trigger, frozen=True, kw_only=True):
    """Fires when a TCP port takes connections, or takes none; again after it was not so.

    A port takes none when it refuses or does not answer in time. Of a host without an address
    nothing is said.

    Attributes:
        host: Name or address, as the triggerer's machine knows it.
        port: From 1 to 65535.
        open: Whether to wait for an open port; False waits for one that is closed.
        interval: How long to wait between two attempts; at least 0.1 s.
        timeout: How long a connection may take.

    The payload is `{"host", "port", "open"}`.
    """

    host: str
    port: int
    open: bool = True
    interval: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be connected to."""
        check_filled("TcpPort", "host", self.host)
        check_interval("TcpPort", self.interval)
        if self.port not in _PORTS:
            raise DefinitionError(f"TcpPort: port must be from 1 to 65535, not {self.port}")
        if self.timeout <= timedelta(0):
            raise DefinitionError(f"TcpPort: timeout must be above 0, not {self.timeout}")

    def share_key(self) -> str:
        """Let equal ones share one attempt."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Connect at intervals, and yield an event when the port has become so."""
        told = bool(ctx.position)
        while True:
            found = await self._is_open(ctx)
            so = found is not None and found == self.open
            if so and not told:
                payload = {"host": self.host, "port": self.port, "open": self.open}
                yield TriggerEvent(payload=payload, position=True)
            told = so
            await ctx.sleep(self.interval.total_seconds())

    async def _is_open(self, ctx: TriggerContext) -> bool | None:
        """Return whether the port takes connections; None if the host has no address."""
        try:
            with anyio.fail_after(self.timeout.total_seconds()):
                stream = await anyio.connect_tcp(self.host, self.port)
        except gaierror as error:
            ctx.log("tcp.no_address", host=self.host, reason=str(error))
            return None
        except OSError:  # also TimeoutError
            return False
        await anyio.aclose_forcefully(stream)
        return True

"""TCP trigger: waits for a port to open or close."""

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
    """Fires when a TCP port opens, or closes; again after it was otherwise.

    A port is closed when it refuses connections or does not answer in time. A host without an
    address is neither open nor closed.

    Attributes:
        host: Name or address, as the triggerer's machine knows it.
        port: From 1 to 65535.
        open: Whether to wait for an open port; False waits for a closed one.
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
        """Raise DefinitionError for an invalid host or port."""
        check_filled("TcpPort", "host", self.host)
        check_interval("TcpPort", self.interval)
        if self.port not in _PORTS:
            raise DefinitionError(f"TcpPort: port must be from 1 to 65535, not {self.port}")
        if self.timeout <= timedelta(0):
            raise DefinitionError(f"TcpPort: timeout must be above 0, not {self.timeout}")

    def share_key(self) -> str:
        """Share one attempt among equal triggers."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Connect at intervals, and yield an event when the port becomes as wanted."""
        reported = bool(ctx.position)
        while True:
            found = await self._is_open(ctx)
            fits = found is not None and found == self.open
            if fits and not reported:
                payload = {"host": self.host, "port": self.port, "open": self.open}
                yield TriggerEvent(payload=payload, position=True)
            reported = fits
            await ctx.sleep(self.interval.total_seconds())

    async def _is_open(self, ctx: TriggerContext) -> bool | None:
        """Return whether the port accepts connections; None if the host has no address."""
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

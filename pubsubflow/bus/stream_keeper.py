"""The stream keeper watches the streams while a daemon runs.

A stream that was deleted, or that a server lost with its disk, is made again: publishers of
`PSF_EVT` would not notice that it is gone, since they wait for no acknowledgement. A stream without
a leader takes nothing although the connection is up, so readiness depends on it. On a cluster whose
servers were not all there when a daemon started, streams get their replicas later; and one that the
network has cut off from its peers is left for another, as it knows no leaders. What a server with a
full disk could not remove is removed.
"""

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus.connection import Bus
from pubsubflow.bus.elsewhere import go_elsewhere
from pubsubflow.bus.leaders import read_leaders
from pubsubflow.bus.leftovers import remove_leftovers
from pubsubflow.errors import BusUnavailable, PubsubflowError
from pubsubflow.services import next_turn, run_until

log = structlog.get_logger(__name__)

EVERY_SECONDS = 2.0
AGAIN_SECONDS = 0.5
"""The same while a stream has no leader."""
LEFTOVERS_SECONDS = 30.0
"""Pause between two looks for leftovers."""


class StreamKeeper:
    """Looks at the streams now and then, and creates those that are missing.

    Args:
        bus: The connection.
        every_seconds: Pause between two checks.

    Attributes:
        available: Whether each stream had a leader at the last check.
    """

    def __init__(self, bus: Bus, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._bus = bus
        self._every_seconds = every_seconds
        self.available = True
        self._leftovers_at = 0.0
        self._turn = 0

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Watch until `stopping` is set."""
        await run_until(stopping, self._keep, task_status=task_status)

    async def _keep(self) -> None:
        while True:
            await self._bus.wait_connected()
            await self._check()
            again = min(self._every_seconds, AGAIN_SECONDS)
            pause = self._every_seconds if self.available else again
            await anyio.sleep_until(next_turn(pause))

    async def _check(self) -> None:
        error = None
        try:
            # A single server has all streams or none; those of a cluster have a leader each.
            one_by_one = self.available and not self._bus.client.is_clustered
            await self._bus.stream_set.restore(self._turn if one_by_one else None)
            self._turn += 1
            if self._bus.client.is_clustered:
                await read_leaders(self._bus)
            if anyio.current_time() >= self._leftovers_at:
                self._leftovers_at = anyio.current_time() + LEFTOVERS_SECONDS
                await remove_leftovers(self._bus)
        except PubsubflowError as failure:
            error = str(failure)
            if isinstance(failure, BusUnavailable):
                await go_elsewhere(self._bus)
        available = error is None
        if available != self.available:
            self.available = available
            if available:
                log.info("bus.streams_available")
            else:
                log.warning("bus.streams_unavailable", error=error)

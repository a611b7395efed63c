"""The lag of the event loop, by which everything in the daemon is late."""

from collections.abc import Iterator

import anyio
from anyio.abc import TaskStatus

from pubsubflow.instruments import Histogram, Instrument
from pubsubflow.services import next_turn

_INTERVAL_SECONDS = 1.0


class EventLoopLag:
    """A service that sleeps until the next second and measures how late it wakes, always."""

    def __init__(self) -> None:
        self._lag = Histogram(
            "pubsubflow_event_loop_lag_seconds",
            "How late the daemon's event loop wakes what is due, measured once a second.",
        )

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over its instruments."""
        yield self._lag

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Measure until `stopping` is set."""
        task_status.started()
        while not stopping.is_set():
            due = next_turn(_INTERVAL_SECONDS)
            with anyio.CancelScope(deadline=due):
                await stopping.wait()
                return
            self._lag.observe(anyio.current_time() - due)

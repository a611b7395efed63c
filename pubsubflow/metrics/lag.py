"""How late the event loop is: everything on it waits that long."""

from collections.abc import Iterator

import anyio
from anyio.abc import TaskStatus

from pubsubflow.instruments import Figure, Histogram

_EVERY_SECONDS = 1.0


class LoopLag:
    """A service that wakes now and then and looks how late it is."""

    def __init__(self) -> None:
        self._lag = Histogram(
            "pubsubflow_event_loop_lag_seconds",
            "How late the daemon's event loop wakes what is due, looked at once a second.",
        )

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over its figures."""
        yield self._lag

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look until `stopping` is set."""
        task_status.started()
        while not stopping.is_set():
            due = anyio.current_time() + _EVERY_SECONDS
            with anyio.CancelScope(deadline=due):
                await stopping.wait()
                return
            self._lag.observe(anyio.current_time() - due)

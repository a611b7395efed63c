"""The metrics of a worker: its slots, waiting tasks and processes, by kind."""

from collections.abc import Callable, Iterator, Mapping

from pubsubflow.instruments import Gauge, Instrument
from pubsubflow.worker.assignment import Engine


class WorkerMetrics:
    """The gauges of one worker.

    Args:
        pools: Its pools by kind; filled once it runs.
    """

    def __init__(self, pools: Mapping[str, Engine]) -> None:
        self._pools = pools

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all gauges."""
        for name, text, read in _GAUGES:
            yield Gauge(f"pubsubflow_worker_{name}", text, self._by_kind(read), ("kind",))

    def _by_kind(self, read: Callable[[Engine], int]) -> Callable[[], dict[tuple[str, ...], float]]:
        return lambda: {(kind,): read(pool) for kind, pool in self._pools.items()}


_GAUGES: tuple[tuple[str, str, Callable[[Engine], int]], ...] = (
    ("slots", "Tasks that can run at once in this worker.", lambda pool: pool.slots),
    ("slots_used", "Tasks that run in this worker.", lambda pool: pool.busy),
    ("waiting_tasks", "Tasks that wait for a process in this worker.", lambda pool: pool.waiting),
    ("runners", "Processes of this worker for users' code.", lambda pool: pool.runners),
)

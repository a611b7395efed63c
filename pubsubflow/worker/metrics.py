"""What a worker counts."""

from collections.abc import Callable, Iterator, Mapping

from pubsubflow.instruments import Figure, Gauge
from pubsubflow.worker.process_pool import Pool


class WorkerFigures:
    """What one worker tells about its slots and processes.

    Args:
        pools: Its pools by kind; filled once it runs.
    """

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        for name, text, look in _LOOKS:
            yield Gauge(f"pubsubflow_worker_{name}", text, self._by_kind(look), ("kind",))

    def _by_kind(self, look: Callable[[Pool], int]) -> Callable[[], dict[tuple[str, ...], float]]:
        return lambda: {(kind,): look(pool) for kind, pool in self._pools.items()}


_LOOKS: tuple[tuple[str, str, Callable[[Pool], int]], ...] = (
    ("slots", "Tasks that can run at once in this worker.", lambda pool: pool.slots),
    ("slots_used", "Tasks that run in this worker.", lambda pool: pool.busy),
    ("waiting_tasks", "Tasks that this worker has and no process runs yet.", lambda p: p.waiting),
    ("runners", "Processes of this worker for users' code.", lambda pool: pool.runners),
)

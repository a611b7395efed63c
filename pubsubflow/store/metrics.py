"""What the store counts."""

from collections.abc import Iterator

import asyncpg

from pubsubflow.instruments import Figure, Gauge, Histogram


class StoreFigures:
    """What one pool of connections tells about itself.

    Args:
        pool: The connections.

    Attributes:
        acquire_seconds: How long it took to borrow a connection.
        statement_seconds: How long the statements of folds took. Not asyncpg's own logger of
            statements: that costs more than all other figures together.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.acquire_seconds = Histogram(
            "pubsubflow_postgres_acquire_seconds",
            "Time to borrow a connection from the pool.",
        )
        self.statement_seconds = Histogram(
            "pubsubflow_postgres_statement_seconds",
            "Time from sending a statement of a fold to its last row.",
        )
        self._pool = pool

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        yield self.acquire_seconds
        yield self.statement_seconds
        yield Gauge(
            "pubsubflow_postgres_pool_connections",
            "Connections of the pool: in use, idle, and at most.",
            self._connections,
            ("state",),
        )

    def _connections(self) -> dict[tuple[str, ...], float]:
        pool = self._pool
        idle = pool.get_idle_size()
        return {
            ("used",): pool.get_size() - idle,
            ("idle",): idle,
            ("max",): pool.get_max_size(),
        }

"""Metrics of the store."""

from collections.abc import Iterator

import asyncpg

from pubsubflow.instruments import Gauge, Histogram, Instrument


class StoreMetrics:
    """Metrics of one connection pool.

    Args:
        pool: The pool.

    Attributes:
        acquire_seconds: Time to acquire a connection.
        statement_seconds: Time of the statements of the manager's batches.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.acquire_seconds = Histogram(
            "pubsubflow_postgres_acquire_seconds",
            "Time to acquire a connection from the pool.",
        )
        # Timed by hand: asyncpg's query loggers cost more than all other metrics together.
        self.statement_seconds = Histogram(
            "pubsubflow_postgres_statement_seconds",
            "Time of a statement of a batch, from sending it to its last row.",
        )
        self._pool = pool

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all metrics."""
        yield self.acquire_seconds
        yield self.statement_seconds
        yield Gauge(
            "pubsubflow_postgres_pool_connections",
            "Connections of the pool, by state: used, idle, and the maximum.",
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

"""Metrics of the bus."""

from collections.abc import Callable, Iterator

from pubsubflow.instruments import Counter, Gauge, Instrument


class BusMetrics:
    """Metrics of one connection to NATS.

    Args:
        connected: Returns whether the connection is up.
        outstanding: Returns the number of unacknowledged durable messages.
        left: Counts what is left to daemons of a newer version.

    Attributes:
        reconnects: Connections after the first.
    """

    def __init__(
        self, connected: Callable[[], bool], outstanding: Callable[[], int], left: Counter
    ) -> None:
        self._left = left
        self.reconnects = Counter(
            "pubsubflow_nats_reconnects", "Connections to NATS after the first one."
        )
        self._gauges = (
            Gauge("pubsubflow_nats_connected", "1 while there is a connection to NATS.", connected),
            Gauge(
                "pubsubflow_nats_unacknowledged_messages",
                "Durable messages that JetStream has not acknowledged yet.",
                outstanding,
            ),
        )

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all metrics."""
        yield from (self.reconnects, self._left)
        yield from self._gauges

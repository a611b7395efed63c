"""What the bus counts."""

from collections.abc import Callable, Iterator

from pubsubflow.instruments import Counter, Figure, Gauge


class BusFigures:
    """What one connection to NATS tells about itself.

    Args:
        connected: Returns whether there is a connection now.
        outstanding: Returns how many durable messages await their acknowledgement.

    Attributes:
        reconnects: Connections after the first.
    """

    def __init__(self, connected: Callable[[], bool], outstanding: Callable[[], int]) -> None:
        self.reconnects = Counter(
            "pubsubflow_nats_reconnects", "Connections to NATS after the first one."
        )
        self._looks = (
            Gauge("pubsubflow_nats_connected", "1 while there is a connection to NATS.", connected),
            Gauge(
                "pubsubflow_nats_unacknowledged_messages",
                "Durable messages that were sent and that JetStream has not acknowledged yet.",
                outstanding,
            ),
        )

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        yield self.reconnects
        yield from self._looks
